#!/usr/bin/env python3
"""Proves that compiled seccomp programs allow exactly what the written policies say.

Each line of the standard input is a case: the path of a policy (sandbox/gate.json, say) and the program in hexadecimal, as
the kernel takes it (struct sock_filter, eight bytes each, little-endian). For each, one line: `proved` with the number of
instructions, or `refuted` with a system call on which program and policy differ, or `malformed` with the reason.
Exit status 0 if all are proved, 1 if not, 2 if something else failed.

Both sides are read here from what they are, not by the library that compiles the one into the other: the program by what
the kernel documents of classic BPF (Documentation/networking/filter.rst), the policy as JSON, call numbers from the kernel's own header.
The solver is asked for a number, an architecture and six arguments, all bits of each free, on which the two disagree.

    pip install --require-hashes -r requirements.txt        # or install.sh
"""

import json
import subprocess
import sys
from functools import lru_cache

from z3 import And, BitVec, BitVecVal, BoolVal, Extract, If, Not, Or, SolverFor, UGE, UGT, ULE, ULT, sat, unsat

X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64; i386 by int 0x80 is 0x40000003
X32 = 0x40000000  # __X32_SYSCALL_BIT: an x32 call has X86_64's architecture and a number from here up
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
ACTIONS = {ALLOW: "allow", KILL_PROCESS: "kill_process"}

# JEQ, JGT, JGE, JSET, each with a constant
COMPARE = {0x15: lambda a, k: a == k, 0x25: UGT, 0x35: UGE, 0x45: lambda a, k: a & k != 0}

# struct seccomp_data
NR, ARCH, POINTER = BitVec("nr", 32), BitVec("arch", 32), BitVec("instruction_pointer", 64)
ARGS = [BitVec(f"args[{i}]", 64) for i in range(6)]

# What no role may ever do, whatever its policy says: a rule for one of these is refuted even where program and policy agree.
NEVER = """
open openat openat2 creat name_to_handle_at open_by_handle_at memfd_create memfd_secret socket socketpair connect bind listen
setsockopt shutdown sendmsg sendmmsg fcntl dup dup2 dup3 pidfd_open pidfd_getfd pidfd_send_signal kill tkill tgkill
rt_sigqueueinfo rt_tgsigqueueinfo rt_sigaction ptrace process_vm_readv process_vm_writev process_madvise kcmp clone clone3 fork vfork
execve execveat unshare setns mount umount2 pivot_root chroot move_mount fsopen open_tree prctl seccomp setuid setresuid setgid setresgid
capset prlimit64 setrlimit mprotect pkey_mprotect shmat remap_file_pages bpf perf_event_open userfaultfd keyctl add_key
request_key io_uring_setup io_uring_enter io_uring_register io_setup io_submit modify_ldt arch_prctl personality init_module finit_module
kexec_load kexec_file_load reboot iopl ioperm
""".split()
# Of these the supervisor's policy has some, since each role inherits its filter and still has to start and to lock itself. What stays
# forbidden to it, beside what `supervisor_never` says of arguments.
SUPERVISOR = """
openat openat2 memfd_create memfd_secret socket socketpair connect bind listen sendmsg fcntl dup2 pidfd_open kill rt_sigaction clone execveat
unshare mount chroot prctl seccomp setresuid setresgid capset prlimit64 mprotect keyctl arch_prctl
""".split()
PROT_WRITE, PROT_EXEC = 2, 4
AF_UNIX, AT_EMPTY_PATH = 1, 0x1000
# Threads, shared memory, and every namespace (clone(2)).
CLONE_MORE = 0x7E020000 | 0x00010000 | 0x00000100 | 0x00000080


class Malformed(Exception):
    """A program that the kernel would refuse or this script cannot read, or a policy of another form."""


@lru_cache
def numbers():
    """Call numbers by name, from the C compiler's view of the kernel's header."""
    macros = subprocess.run(
        ["cc", "-E", "-dM", "-include", "asm/unistd_64.h", "-x", "c", "/dev/null"], capture_output=True, text=True, check=True
    ).stdout
    words = (line.split() for line in macros.splitlines() if line.startswith("#define __NR_"))
    return {name.removeprefix("__NR_"): int(value) for _, name, value in words}


def load(offset):
    """The word at a byte offset of seccomp_data."""
    words = [NR, ARCH]
    for wide in [POINTER, *ARGS]:
        words += [Extract(31, 0, wide), Extract(63, 32, wide)]
    if offset % 4 or offset // 4 >= len(words):
        raise Malformed(f"load of offset {offset}")
    return words[offset // 4]


@lru_cache
def verdict(program):
    """What the program returns, as a term over seccomp_data.

    Jumps only go forward, so each instruction is visited once: under the condition that it is reached, with the accumulator
    that it is then reached with.
    """
    reached = [BoolVal(False)] * (len(program) + 256)
    accumulator = [BitVecVal(0, 32)] * len(reached)
    reached[0] = BoolVal(True)
    result = None

    def go(to, condition, value):
        if to >= len(program):
            raise Malformed(f"instruction {to} of {len(program)} would be next")
        accumulator[to] = If(condition, value, accumulator[to])
        reached[to] = Or(reached[to], condition)

    for at, (code, if_true, if_false, k) in enumerate(program):
        here, a = reached[at], accumulator[at]
        if code == 0x20:  # LD W ABS
            go(at + 1, here, load(k))
        elif code == 0x54:  # AND K
            go(at + 1, here, a & k)
        elif code == 0x05:  # JA
            go(at + 1 + k, here, a)
        elif code in COMPARE:
            go(at + 1 + if_true, And(here, COMPARE[code](a, k)), a)
            go(at + 1 + if_false, And(here, Not(COMPARE[code](a, k))), a)
        elif code == 0x06:  # RET K
            result = BitVecVal(k, 32) if result is None else If(here, BitVecVal(k, 32), result)
        else:
            raise Malformed(f"instruction {at} has code {code:#x}")
    if result is None:
        raise Malformed("the program is empty")
    return result


def condition(arg):
    """One argument's check. `dword` means the lower half: what the kernel's int parameters get."""
    unknown = arg.keys() - {"index", "type", "op", "val", "comment"}
    if unknown:
        raise Malformed(f"unknown keys {unknown}")
    width = {"dword": 32, "qword": 64}[arg["type"]]
    value, wide = Extract(width - 1, 0, ARGS[arg["index"]]), arg["val"]
    if not 0 <= wide < 1 << width:
        raise Malformed(f"{wide} does not fit {arg['type']}")
    op = arg["op"]
    if isinstance(op, dict):
        return value & op["masked_eq"] == wide & op["masked_eq"]
    return {
        "eq": value == wide,
        "ne": value != wide,
        "lt": ULT(value, wide),
        "le": ULE(value, wide),
        "gt": UGT(value, wide),
        "ge": UGE(value, wide),
    }[op]


@lru_cache
def allowed(path):
    """Whose policy it is, and what its text allows, as a condition over seccomp_data."""
    number = numbers()
    with open(path, encoding="utf-8") as file:
        [(role, policy)] = json.load(file).items()
    if policy.keys() != {"mismatch_action", "match_action", "filter"}:
        raise Malformed(f"keys {sorted(policy)}")
    if (policy["match_action"], policy["mismatch_action"]) != ("allow", "kill_process"):
        raise Malformed("a call in the policy must be allowed, and any other kill the process")
    rules = []
    for rule in policy["filter"]:
        unknown = rule.keys() - {"syscall", "args", "comment"}
        if unknown:
            raise Malformed(f"unknown keys {unknown}")
        rules.append(And(NR == number[rule["syscall"]], *map(condition, rule.get("args", []))))
    return role, And(ARCH == X86_64, Or(rules))


def shown(model, result, name):
    """A counterexample for people."""
    value = lambda term: model.eval(term, model_completion=True).as_long()
    nr, arch, returned = value(NR), value(ARCH), value(result)
    args = ", ".join(f"{value(arg):#x}" for arg in ARGS)
    return f"call {nr} ({name.get(nr, 'no name')}), architecture {arch:#x}, arguments {args}: the program says {ACTIONS.get(returned, hex(returned))}"


@lru_cache
def never(role):
    """What no process may do, whatever its policy says."""
    is_call = lambda call: NR == numbers()[call]
    everywhere = [ARCH != X86_64, UGE(NR, X32)]
    if role != "supervisor":
        return Or(And(is_call("mmap"), ARGS[2] & PROT_EXEC != 0), *everywhere, *map(is_call, NEVER))
    both = PROT_WRITE | PROT_EXEC
    supervisor_never = [
        And(is_call("mmap"), Extract(31, 0, ARGS[2]) & both == both),
        And(is_call("mprotect"), Extract(31, 0, ARGS[2]) & PROT_EXEC != 0),
        And(Or(is_call("socket"), is_call("socketpair")), Extract(31, 0, ARGS[0]) != AF_UNIX),
        And(is_call("execveat"), Extract(31, 0, ARGS[4]) & AT_EMPTY_PATH == 0),
        And(is_call("clone"), Extract(31, 0, ARGS[0]) & CLONE_MORE != 0),
    ]
    return Or(*supervisor_never, *everywhere, *(is_call(call) for call in NEVER if call not in SUPERVISOR))


def prove(path, program):
    """`proved …` or `refuted …`."""
    name = {nr: call for call, nr in numbers().items()}
    result, (role, policy) = verdict(program), allowed(path)
    for claim, counterexample in [
        ("the policy says otherwise", result != If(policy, BitVecVal(ALLOW, 32), BitVecVal(KILL_PROCESS, 32))),
        ("no role may do that, whatever its policy", And(never(role), result != KILL_PROCESS)),
    ]:
        solver = SolverFor("QF_BV")
        solver.add(counterexample)
        answer = solver.check()
        if answer == sat:
            return f"refuted: {shown(solver.model(), result, name)}, {claim}"
        if answer != unsat:
            return f"refuted: the solver gave up ({solver.reason_unknown()})"
    return f"proved: {len(program)} instructions"


def instructions(text):
    """struct sock_filter: code(2) jt(1) jf(1) k(4)."""
    raw = bytes.fromhex(text)
    if len(raw) % 8:
        raise Malformed(f"{len(raw)} bytes")
    word = lambda at, size: int.from_bytes(raw[at : at + size], "little")
    return tuple((word(at, 2), raw[at + 2], raw[at + 3], word(at + 4, 4)) for at in range(0, len(raw), 8))


def main():
    all_proved = True
    for line in sys.stdin:
        path, text = line.split()
        try:
            answer = prove(path, instructions(text))
        except Malformed as why:
            answer = f"malformed: {why}"
        all_proved &= answer.startswith("proved")
        print(answer, flush=True)
    return 0 if all_proved else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:  # A traceback is for us, the status for the caller.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
