"""What `make demo` shows: an IPv6-only network in namespaces, and clat-agent giving a laptop in it IPv4.

Needs root (or `unshare --user --map-root-user --net --mount`) and the built agent. Exit status 0 if all went as told.
"""

import os
import shlex
import shutil
import sys
import textwrap
import time

import agent as agents
import probe
import servers
import snapshot
from lab import Lab

COLOURED = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
SIZE = "100M"


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOURED else text


def title(text):
    print("\n" + paint("1;36", text), flush=True)


def say(text):
    print("\n".join(textwrap.wrap(text, min(100, shutil.get_terminal_size().columns))), flush=True)


def fact(text):
    print(paint("1;32", "  => ") + paint("1", text), flush=True)


class Failure(Exception):
    """The demonstration did not show what it promised."""


class Story:
    """The demonstration's thread: commands typed in the laptop, and what each must show."""

    def __init__(self, lab):
        self.lab = lab

    def type(self, command, expect=None, refuse=None):
        """Shows a command as a user types it, runs it in the laptop, shows its output, and looks for what it
        promised."""
        shown = " ".join(shlex.quote(str(word)) for word in command) if isinstance(command, list) else command
        print(paint("1", f"  laptop$ {shown.replace(str(agents.binary()), 'clat-agent')}"), flush=True)
        words = command if isinstance(command, list) else ["sh", "-c", command]
        result = self.lab.laptop.run(words, timeout=300)
        output = (result.stdout + result.stderr).rstrip()
        if output:
            print(textwrap.indent(output, "  "), flush=True)
        if expect and expect not in output:
            raise Failure(f"expected to see: {expect}")
        if refuse and refuse in output:
            raise Failure(f"expected not to see: {refuse}")
        return output

    def tell(self):
        """The whole story."""
        lab, laptop = self.lab, self.lab.laptop
        before = snapshot.take(laptop)

        title("1. A laptop on an IPv6-only network")
        say("Its router announces an IPv6 prefix and, by PREF64 (RFC 8781), that a NAT64 stands behind it. All of it "
            "lives in network namespaces of this machine; no packet leaves them.")
        print(textwrap.dedent(f"""
            laptop ──────── router ──────── core ──────── NAT64 ──────── Internet
            {lab.site.lan}   (IPv6 only)    (IPv6 only)   tayga, NAT44   {lab.SERVER} (IPv4 only)
        """))
        self.type(["ip", "-brief", "address", "show", "dev", "eth0"], refuse="198.51.100.")
        self.type(["ping", "-n", "-c", "1", lab.SERVER], expect="unreachable")

        title("2. clat-agent starts")
        pinger = probe.Pinger(laptop, lab.SERVER)
        started = time.monotonic()
        agent = lab.agent()
        shown = " ".join(agent.command).replace(str(agents.binary()), "clat-agent")
        print(paint("1", f"  laptop$ {shown}"), flush=True)
        try:
            self.measure(agent, pinger, started)
            self.use(agent)
        except BaseException:
            print(textwrap.indent(agent.log.rstrip(), "  | "), file=sys.stderr)
            agent.kill()
            raise
        finally:
            pinger.close()
        self.end(agent, before)

    def measure(self, agent, pinger, started):
        """From the advertisement to the first reply."""
        try:
            sequence, _ = pinger.first_sent(timeout=20)
        except TimeoutError as error:
            raise Failure(str(error)) from None
        replied = pinger.reply(sequence, timeout=5)
        if replied is None:
            raise Failure("the first IPv4 packet got no answer")
        entry = agent.wait_for("on")
        print(textwrap.indent(agent.log.rstrip(), "  "))
        heard = next((sent for sent in self.lab.site.router.advertiser.log()["sent"] if sent >= started), None)
        if heard is None:
            raise Failure("the agent did not ask the router for an advertisement")
        fact(f"PREF64 {entry['pref64']}, heard {(heard - started) * 1000:.0f} ms after the start, when the router "
             "answered a solicitation")
        fact(f"{(replied - heard) * 1000:.0f} ms from that Router Advertisement to the first IPv4 reply "
             + ("(in optimistic use while duplicate address detection runs, RFC 4429)" if entry["ipv6AddressState"] == "optimistic"
                else "(the agent's address had passed duplicate address detection)"))

    def use(self, agent):
        """IPv4 as people use it."""
        lab = self.lab
        title("3. IPv4 works")
        self.type(["ping", "-n", "-c", "3", "-i", "0.2", lab.SERVER], expect=" 0% packet loss")
        self.type(["dig", f"@{lab.DNS_SERVER}", "+short", "www.example.com", "A"], expect=lab.SERVER)
        self.type(["curl", "-sS", f"http://{lab.SERVER}/whoami"], expect=str(lab.site.wan[1]))
        say("  The server saw the NAT64's IPv4 address, as it should.")
        digest = servers.sha256(servers.parse_size(SIZE))
        began = time.monotonic()
        self.type(f"curl -sS http://{lab.SERVER}/{SIZE} | sha256sum", expect=digest)
        fact(f"{SIZE}B in {time.monotonic() - began:.1f} s, each octet right (through tayga at the network's end)")
        title("4. The way there")
        say("Routers without IPv4 show as 192.0.0.8; the first is the translator itself.")
        self.type(["traceroute", "-n", "-I", "-q", "1", lab.SERVER], expect="192.0.0.8", refuse="*")
        title("5. What it says of itself")
        self.type([agents.binary(), "status", "--runtime-dir", agent.runtime_directory], expect=lab.site.pref64)
        self.type(["ip", "-4", "route"], expect="default")

    def end(self, agent, before):
        """The teardown, and the proof that nothing is left."""
        title("6. It stops, and nothing is left")
        self.type(f"kill -TERM {agent.process.pid}")
        if (status := agent.wait()) != 0:
            raise Failure(f"clat-agent ended with {status}:\n{agent.log}")
        try:
            snapshot.wait_for(self.lab.laptop, before)
        except AssertionError as error:
            raise Failure(str(error)) from None
        self.type(["ip", "-brief", "link"], refuse="clat")
        fact(f"compared {len(before)} facts before and after (links, addresses, routes, rules, neighbours, sysctls, "
             "nftables): no difference")


def main():
    if not agents.binary().exists():
        print(f"clat-agent is not built ({agents.binary()} is missing): swift build -c release", file=sys.stderr)
        return 1
    try:
        with Lab() as lab:
            Story(lab).tell()
    except (Failure, AssertionError, PermissionError) as failure:
        print(paint("1;31", f"\nThe demonstration failed. {failure}"), file=sys.stderr)
        return 1
    print(paint("1;32", "\nThe demonstration succeeded."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
