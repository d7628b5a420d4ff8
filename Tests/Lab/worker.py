"""A process of the lab's own that is no program of its own: a copy of this one, which has read all modules already. An interpreter for each
would take an emulated machine seconds for every lab."""

import contextlib
import gc
import multiprocessing
import os
import signal
import traceback


class Worker:
    """Runs `function(connection, *arguments)` in a namespace. `connection` is the other end (see `multiprocessing.Pipe`); the function
    ends where its own end does, and with it this process."""

    def __init__(self, namespace, function, *arguments):
        self.connection, theirs = multiprocessing.Pipe()
        with namespace.entered():
            self._process = os.fork()
            if self._process == 0:
                _work(function, theirs, arguments)
        theirs.close()

    def close(self):
        """Ends it. May be called again."""
        if self._process is None:
            return
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._process = None


def _work(function, connection, arguments):
    try:
        # Descriptors of before are closed, and objects of before not tidied up: they would close what has got these numbers since.
        gc.freeze()
        os.closerange(3, connection.fileno())
        os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        function(connection, *arguments)
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
