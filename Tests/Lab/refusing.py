"""Runs a command to which the kernel refuses bpf(2), as containers' seccomp profiles and systemd's
`SystemCallFilter=~bpf` do: `python3 no_bpf.py COMMAND...`
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# linux/seccomp.h, linux/prctl.h, linux/filter.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def refuse_bpf():
    """For this process and all that it becomes. Needs CAP_SYS_ADMIN in its user namespace."""
    instructions = [
        (_LOAD_WORD, 0, 0, 0),  # struct seccomp_data begins with the number of the call
        (_JUMP_IF_EQUAL, 0, 1, _BPF[platform.machine()]),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl PR_SET_SECCOMP")


if __name__ == "__main__":
    refuse_bpf()
    os.execvp(sys.argv[1], sys.argv[1:])
