"""onnx's checker and onnxruntime in a process of their own, which a model may crash or hang."""

import contextlib
import multiprocessing


def _serve(connection):
    import onnx
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with contextlib.suppress(EOFError):
        while True:
            data, feeds = connection.recv()
            try:
                model = onnx.load_model_from_string(data)
                model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
                onnx.checker.check_model(model, full_check=True)
            except Exception as error:
                connection.send(("invalid", _line(error)))
                continue
            try:
                session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
                connection.send(("ran", session.run(None, feeds)))
            except Exception as error:
                connection.send(("refused", _line(error)))


def _line(error):
    return " ".join(str(error).split())[:300]


class Runtime(contextlib.AbstractContextManager):
    """Checks and runs models one after the other; a process that dies or takes too long is replaced.

    Args:
      seconds: that one model may take.
    """

    def __init__(self, seconds=20):
        self._seconds, self._process = seconds, None

    def run(self, model, feeds):
        """Checks a model and runs it.

        Args:
          model: a serialised ModelProto. feeds: arrays by the names of its inputs.
        Returns:
          ("ran", outputs), ("invalid", why) of onnx's checker, ("refused", why) of onnxruntime, ("died", exit code) or
          ("hung", None).
        """
        if self._process is None:
            self._start()
        self._connection.send((model, feeds))
        try:
            if self._connection.poll(self._seconds):
                return self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self._process = None
            return "died", code
        self._stop()
        return "hung", None

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._connection, reference = context.Pipe()
        self._process = context.Process(target=_serve, args=(reference,), daemon=True)
        self._process.start()
        reference.close()

    def _stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def __exit__(self, *exception):
        self._stop()
