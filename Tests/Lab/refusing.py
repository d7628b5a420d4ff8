"""Runs a command to which the kernel refuses something: `python3 refusing.py bpf|seccomp|unshare|uso|tso COMMAND...`

`bpf` refuses bpf(2), as containers' seccomp profiles and systemd's `SystemCallFilter=~bpf` do; `seccomp` refuses seccomp(2); `unshare` refuses
namespaces, as a kernel without CONFIG_NET_NS does; `uso` refuses a TUN the offload of
UDP super-packets, as Linux before 6.2 does; `tso` that of TCP too.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# linux/seccomp.h, linux/prctl.h, linux/filter.h, linux/if_tun.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_TUNSETOFFLOAD, _USO, _TSO = 0x400454D0, 0x60, 0x0E
# Where struct seccomp_data has the number of the call, and the low halves of its second and third argument.
_CALL, _SECOND, _THIRD = 0, 24, 32
_GENERIC = {"bpf": 280, "ioctl": 29, "seccomp": 277, "unshare": 97}
_NUMBERS = {"x86_64": {"bpf": 321, "ioctl": 16, "seccomp": 317, "unshare": 272}, "aarch64": _GENERIC, "riscv64": _GENERIC}


def _call(number, error=errno.EPERM):
    return [
        (_LOAD, 0, 0, _CALL),
        (_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _ERRNO | error),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _offload(numbers, mask):
    return [
        (_LOAD, 0, 0, _CALL),
        (_IF_EQUAL, 0, 5, numbers["ioctl"]),
        (_LOAD, 0, 0, _SECOND),
        (_IF_EQUAL, 0, 3, _TUNSETOFFLOAD),
        (_LOAD, 0, 0, _THIRD),
        (_IF_ANY_BIT, 0, 1, mask),
        (_RETURN, 0, 0, _ERRNO | errno.EINVAL),
        (_RETURN, 0, 0, _ALLOW),
    ]


WHAT = {"bpf": lambda numbers: _call(numbers["bpf"]), "seccomp": lambda numbers: _call(numbers["seccomp"]),
        "unshare": lambda numbers: _call(numbers["unshare"], errno.EINVAL),
        "uso": lambda numbers: _offload(numbers, _USO), "tso": lambda numbers: _offload(numbers, _USO | _TSO)}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def refuse(what):
    """For this process and all that it becomes. Needs CAP_SYS_ADMIN in its user namespace."""
    instructions = WHAT[what](_NUMBERS[platform.machine()])
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl PR_SET_SECCOMP")


if __name__ == "__main__":
    refuse(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
