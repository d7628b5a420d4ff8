"""The commands and the control socket, against a running agent."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

import agent
import namespace
from lab import Lab

pytestmark = pytest.mark.agent
needs_users = pytest.mark.skipif(
    namespace.in_user_namespace(), reason="a user namespace that knows one user has no other (tcpdump becomes one)")


@pytest.fixture(scope="module")
def served():
    """A lab with an agent that is on, for tests that leave both as they found them."""
    with Lab() as lab:
        running = lab.agent()
        running.wait_for("on")
        yield lab, running


def command(lab, running, *words, **options):
    """Runs a subcommand in the laptop, for that agent."""
    return lab.laptop.run([agent.binary(), words[0], "--runtime-dir", running.runtime_directory, *words[1:]], **options)


@pytest.fixture(scope="session")
def varlink_python():
    """A Python that has PyPI's varlink client; it is kept in a folder that git does not see."""
    home = agent.REPOSITORY / ".build-varlink"
    python = home / "bin/python"
    if not python.exists():
        steps = [[sys.executable, "-m", "venv", home], [python, "-m", "pip", "-q", "install", "varlink==31.0.0"]]
        if any(subprocess.run(step, capture_output=True, text=True, check=False).returncode for step in steps):
            shutil.rmtree(home, ignore_errors=True)
            pytest.skip("no varlink client: PyPI cannot be reached")
    return python


# Calls everything as any client would: by what the service says of itself.
VARLINK_CLIENT = """
import json, sys, varlink
with varlink.Client(address="unix:" + sys.argv[1]) as client:
    with client.open("org.varlink.service") as service:
        info = service.GetInfo()
        described = {name: service.GetInterfaceDescription(name)["description"] for name in info["interfaces"]}
        for text in described.values():
            varlink.Interface(text)
        try:
            service.GetInterfaceDescription("org.example.none")
        except varlink.InterfaceNotFound as error:
            missing = error.parameters()["interface"]
    with client.open("org.clatagent") as agent:
        status = agent.Status()
        events = []
        for reply in agent.Monitor(_more=True):
            events.append(reply["event"])
            break
    with client.open("org.clatagent") as agent:
        agent.Renew("eth0")
        try:
            agent.Renew("eth9")
        except varlink.VarlinkError as error:
            unknown = [error.error(), error.parameters()]
print(json.dumps(dict(info=info, described=described, missing=missing, status=status, events=events, unknown=unknown)))
"""


def test_pypis_varlink_client_can_use_all_of_it(served, varlink_python):
    lab, running = served
    told = json.loads(lab.laptop.run(
        [varlink_python, "-c", VARLINK_CLIENT, running.runtime_directory / "control"], check=True).stdout)
    assert told["info"]["interfaces"] == ["org.clatagent", "org.varlink.service"]
    source = agent.REPOSITORY / "Sources/ClatAgent/Control"
    assert told["described"] == {
        name: (source / f"{name}.varlink").read_text() for name in ("org.clatagent", "org.varlink.service")}
    assert told["missing"] == "org.example.none"
    # The client keeps only what the description names, and wants all of it that is not optional.
    mine = running.status()["interfaces"]
    assert [sorted(entry) for entry in told["status"]["interfaces"]] == [sorted(entry) for entry in mine]
    assert told["events"][0]["code"] == "running" and told["events"][0]["state"] == "on"
    assert told["unknown"] == ["org.clatagent.UnknownInterface", {"interface": "eth9"}]


@pytest.mark.skipif(not shutil.which("varlinkctl"), reason="no varlinkctl here")
def test_varlinkctl_can_use_it(served):
    lab, running = served
    socket = running.runtime_directory / "control"
    assert "org.clatagent" in lab.laptop.run(["varlinkctl", "info", socket], check=True).stdout
    lab.laptop.run(["varlinkctl", "validate-idl", agent.REPOSITORY / "Sources/ClatAgent/Control/org.clatagent.varlink"],
                   check=True)
    status = lab.laptop.run(["varlinkctl", "call", "-j", socket, "org.clatagent.Status", "{}"], check=True).stdout
    assert json.loads(status)["pid"] == running.process.pid


@needs_users
def test_a_stranger_may_read_and_not_change(served):
    lab, running = served
    os.chmod(lab.directory, 0o755)
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    def run(*words):
        return lab.laptop.run([*stranger, agent.binary(), *words, "--runtime-dir", running.runtime_directory])
    assert run("status").returncode == 0
    for order in (["renew", "eth0"], ["reexec"]):
        refused = run(*order)
        assert refused.returncode == 2 and "only root" in refused.stderr


def test_monitor_shows_what_happens(served):
    lab, running = served
    words = [agent.binary(), "monitor", "--json", "--runtime-dir", running.runtime_directory]
    with lab.laptop.popen(words, stdout=subprocess.PIPE) as monitor:
        def next_of(kind):
            return next(event for event in map(json.loads, monitor.stdout) if event["kind"] == kind)
        first = json.loads(monitor.stdout.readline())
        assert (first["interface"], first["kind"], first["state"]) == ("eth0", "state", "on")
        lab.laptop.ip("link set eth0 down")
        down = next_of("state")
        assert (down["code"], down["state"]) == ("down", "off") and "bring it up" in down["text"]
        assert next_of("step")["text"] == "take the host's IPv4 default route away"
        lab.laptop.ip("link set eth0 up")
        for line in monitor.stdout:
            if json.loads(line).get("state") == "on":
                break
        monitor.terminate()
    running.wait_for("on")
    with lab.laptop.popen(words[:2] + words[3:] + ["eth0"], stdout=subprocess.PIPE) as monitor:
        line = monitor.stdout.readline()
        assert "eth0: IPv4 works through the NAT64" in line and line[2] == line[5] == ":"
        monitor.terminate()


def test_a_configuration_is_checked_obeyed_and_read_anew(lab):
    file = lab.directory / "config.toml"
    check = lambda: lab.laptop.run([agent.binary(), "config", "check", file])
    assert check().returncode == 66
    file.write_text('interfaces = ["eth*"]\nmtu = 1400\nmetrik = 3\n')
    bad = check()
    assert bad.returncode == 78
    assert bad.stderr == f"{file}:3: metrik: there is no such key here; is it metric?\n"
    running = lab.agent("--config", file)
    assert running.wait() == 78 and f"{file}:3: metrik" in running.log

    file.write_text('interfaces = ["eth*"]\nmtu = 1400\nipv4-address = "192.0.0.5"\n')
    assert check().returncode == 0
    running = lab.agent("--config", file)
    status = running.wait_for("on")
    assert (status["mtu"], status["ipv4Address"]) == (1380, "192.0.0.5")

    file.write_text('log-level = "debug"\ndatapath = "userspace"\n[[interface]]\nname = "eth0"\nmetric = 77\n')
    running.process.send_signal(signal.SIGHUP)
    namespace.wait_until(lambda: running.interface()["metric"] == 77, what="the new metric")
    route = lab.laptop.run(["ip", "-4", "-j", "route", "show", "default"], check=True).stdout
    # "auto" again leaves an address alone that already stands.
    assert [(entry["metric"], entry["prefsrc"]) for entry in json.loads(route)] == [(77, "192.0.0.5")]
    assert "log-level: was info, is debug" in running.log
    # What cannot change is named.
    assert "datapath: was auto, is userspace; a CLAT that stands is not changed by this" in running.log
    assert "ipv4-address: was 192.0.0.5, is auto" in running.log
    assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", lab.SERVER]).stdout

    file.write_text("nonsense")
    running.process.send_signal(signal.SIGHUP)
    namespace.wait_until(lambda: "the configuration stays as it was" in running.log, what="the refusal")
    assert running.interface()["metric"] == 77
    assert running.stop() == 0


def matches(schema, value, where="status"):
    """Checks a value against the part of JSON Schema that ours uses; a schema that uses more is an error of ours."""
    known = {"$schema", "title", "description", "type", "required", "additionalProperties", "properties", "items", "enum",
             "minimum"}
    assert set(schema) <= known, where
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]) and isinstance(value, bool) == (schema["type"] == "boolean"), where
    assert value in schema.get("enum", [value]), where
    assert not isinstance(value, int) or value >= schema.get("minimum", value), where
    if isinstance(value, list):
        for item in value:
            matches(schema["items"], item, where + "[]")
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value), where
        for key, item in value.items():
            known = schema.get("properties", {}).get(key, schema["additionalProperties"])
            assert known, f"{where}.{key} is not in the schema"
            matches(known, item, f"{where}.{key}")


def test_the_json_is_what_its_schema_says(served):
    lab, running = served
    schema = json.loads((agent.REPOSITORY / "docs/status.schema.json").read_text())
    status = running.status()
    matches(schema, status)
    entry = schema["properties"]["interfaces"]["items"]["properties"]
    missing = set(entry) - set(status["interfaces"][0])
    assert missing <= {"uplinkNote", "pref64Resolver", "path", "checkAddress"}, "where IPv4 is on, all else is there"


def test_status_for_people_bars_and_scripts(served):
    lab, running = served
    assert command(lab, running, "status", "--short").stdout == "eth0 on\n"
    text = command(lab, running, "status", "eth0").stdout
    assert text.startswith("eth0: IPv4 works through the NAT64") and "\033" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    unknown = command(lab, running, "status", "eth9")
    assert unknown.returncode == 2 and "it knows: eth0" in unknown.stderr
    # For what starts a DHCPv4 client: an exit status and no words.
    capable = command(lab, running, "status", "eth0", "--ipv6-only-capable")
    assert (capable.returncode, capable.stdout, capable.stderr) == (0, "", "")
    assert command(lab, running, "status", "--ipv6-only-capable").returncode == 64
    nobody = lab.laptop.run([agent.binary(), "status", "--runtime-dir", "/nonexistent"])
    assert nobody.returncode == 2 and "no clat-agent is running here" in nobody.stderr and nobody.stdout == ""
    # On a terminal there are colours, unless NO_COLOR says otherwise; --watch draws again and again.
    def on_a_terminal(*words, environment=None):
        ours, theirs = os.openpty()
        with lab.laptop.popen(
                [agent.binary(), "status", "--runtime-dir", running.runtime_directory, *words], stdout=theirs,
                env=os.environ | (environment or {})) as process:
            os.close(theirs)
            output = b""
            while output.count(b"eth0") < 2 + 4 * ("--watch" in words):
                output += os.read(ours, 4096)
            process.terminate()
        os.close(ours)
        return output
    assert b"\033[1;32meth0\033[0m: IPv4" in on_a_terminal()
    assert b"\033" not in on_a_terminal(environment={"NO_COLOR": "1"})
    watched = on_a_terminal("--watch")
    assert watched.count(b"\033[H") >= 2
    # Each drawing begins at the top, erases what is left of every line, and then what is left below.
    drawing = watched.split(b"\033[H")[1].replace(b"\r\n", b"\n")
    assert drawing.endswith(b"\033[J\n") and all(line.endswith(b"\033[K") for line in drawing.split(b"\n")[:-2]), drawing


@pytest.fixture(scope="session")
def node_exporter():
    """Debian's node_exporter; it is kept in a folder that git does not see."""
    home = agent.REPOSITORY / ".build-node-exporter"
    program = home / "usr/bin/prometheus-node-exporter"
    if not program.exists():
        home.mkdir(exist_ok=True)
        steps = "apt-get -qq download prometheus-node-exporter && dpkg -x prometheus-node-exporter_*.deb ."
        if subprocess.run(["sh", "-c", steps], cwd=home, capture_output=True, check=False).returncode:
            shutil.rmtree(home)
            pytest.skip("no node_exporter: Debian's packages cannot be reached")
    return program


def test_metrics_go_to_prometheus(served, node_exporter):
    lab, running = served
    lab.laptop.run(["ping", "-c3", "-i0.2", lab.SERVER], check=True)
    file = lab.directory / "metrics" / "clat.prom"
    refused = command(lab, running, "metrics", "--textfile", file)
    assert refused.returncode == 73
    assert refused.stderr.startswith(f"clat-agent: {file} cannot be written: No such file or directory; name a file in")
    file.parent.mkdir()
    # As root's cron may have it.
    words = [agent.binary(), "metrics", "--runtime-dir", running.runtime_directory, "--textfile", file]
    lab.laptop.run(["sh", "-c", 'umask 077 && exec "$@"', "sh", *words], check=True)
    assert [entry.name for entry in file.parent.iterdir()] == ["clat.prom"]
    assert file.stat().st_mode & 0o777 == 0o644, "node_exporter is another user"
    assert command(lab, running, "metrics", check=True).stdout.endswith("\n# EOF\n")
    collector = [node_exporter, "--collector.disable-defaults", "--collector.textfile",
                 f"--collector.textfile.directory={file.parent}", "--web.listen-address=127.0.0.1:9100"]
    with lab.laptop.popen(collector, stderr=subprocess.DEVNULL) as exporter:
        def scrape():
            with lab.laptop.entered():
                connection = http.client.HTTPConnection("127.0.0.1", 9100, timeout=10)
                try:
                    connection.request("GET", "/metrics")
                    return connection.getresponse().read().decode()
                except ConnectionRefusedError:
                    return None
        lines = namespace.wait_until(scrape, what="node_exporter").splitlines()
        exporter.terminate()
    assert "node_textfile_scrape_error 0" in lines
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['clat_state{clat_state="on",interface="eth0"}'] == "1"
    for direction in ("out", "in"):
        assert float(values[f'clat_packets_total{{direction="{direction}",interface="eth0"}}']) >= 3


def test_disable_and_enable(lab):
    state = lab.directory / "state"
    arguments = ("--interface", "eth0", "--state-dir", state)
    running = lab.agent(*arguments)
    running.wait_for("on")
    command(lab, running, "disable", "eth0", check=True)
    off = running.wait_for("off")
    assert command(lab, running, "status", "eth0", "--ipv6-only-capable").returncode == 1
    assert command(lab, running, "status").returncode == 1
    assert command(lab, running, "status", "--short").stdout == "eth0 off (disabled)\n"
    assert off["reason"]["code"] == "disabled" and "clat-agent enable" in off["reason"]["sentence"]
    assert lab.laptop.run(["ip", "-4", "route"]).stdout == ""
    command(lab, running, "enable", "eth0", check=True)
    running.wait_for("on")
    assert command(lab, running, "enable", "eth9").returncode == 2

    # For good, so also in a runtime directory that a boot has emptied.
    command(lab, running, "disable", "eth0", "--lasting", check=True)
    running.stop()
    running = lab.agent(*arguments)
    assert running.wait_for("off")["reason"]["code"] == "disabled"
    # Until the next boot, though it is off for good.
    command(lab, running, "enable", "eth0", check=True)
    running.wait_for("on")
    running.stop()
    running = lab.agent(*arguments, again=running)
    running.wait_for("on")
    command(lab, running, "enable", "eth0", "--lasting", check=True)
    running.stop()
    running = lab.agent(*arguments)
    running.wait_for("on")


def test_exec_runs_in_the_namespace(served):
    lab, running = served
    out = command(lab, running, "exec", "eth0", "--", "ip", "-br", "link", check=True).stdout
    assert "clat-uplink" in out and "clat-host" in out and "clat-eth0" not in out
    assert command(lab, running, "exec", "eth0", "--", "sh", "-c", "exit 7").returncode == 7
    assert command(lab, running, "exec", "eth0", "--", "/nonexistent").returncode == 127
    assert command(lab, running, "exec", "eth9", "--", "true").returncode == 2


@needs_users
def test_capture_holds_both_sides_of_the_translator(served):
    lab, running = served
    file = lab.directory / "clat.pcapng"
    words = [agent.binary(), "capture", "eth0", "--runtime-dir", running.runtime_directory, "--output", file]
    with lab.laptop.popen(words, stderr=subprocess.PIPE) as recorder:
        assert "capturing" in recorder.stderr.readline()
        lab.laptop.run(["ping", "-c2", "-i0.2", lab.SERVER], check=True)
        recorder.send_signal(signal.SIGINT)
        said = recorder.stderr.read()
        assert recorder.wait(10) == 0 and " packets captured, 0 lost" in said
    def lines(expression):
        return lab.laptop.run(["tcpdump", "-nr", file, expression], check=True).stdout.splitlines()
    assert len(lines("icmp[0] == 8")) == 2 and len(lines("icmp[0] == 0")) == 2
    assert len(lines("icmp6[0] == 128")) == 2 and len(lines("icmp6[0] == 129")) == 2
    assert f"> {lab.SERVER}: ICMP echo request" in lines("icmp[0] == 8")[0]

    words = words[:-2] + ["--seconds", "1"]
    assert lab.laptop.run(words, stdout=subprocess.DEVNULL).returncode == 0
    assert lab.laptop.run(words[:-2] + ["--output", "/nonexistent/x"]).returncode == 73


def manual(name):
    """A manual page as a reader sees it, without what makes bold."""
    page = subprocess.run(["man", "--warnings", "-l", agent.REPOSITORY / "docs/man" / name], capture_output=True, text=True,
                          check=True, env=os.environ | {"MANWIDTH": "100", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"})
    assert page.stderr == "", "the page has faults"
    return re.sub(".\b", "", page.stdout)


@pytest.mark.skipif(not shutil.which("man") or not shutil.which("groff"), reason="no man and groff here")
def test_the_manual_knows_every_command_and_option_and_no_other():
    dump = json.loads(subprocess.run([agent.binary(), "--experimental-dump-help"], capture_output=True, check=True).stdout)
    options, commands = set(), set()
    def walk(command):
        for argument in command.get("arguments", []):
            options.update(name["name"] for name in argument.get("names") or [] if name["kind"] == "long")
        for child in command.get("subcommands", []):
            if child["commandName"] != "help":
                commands.add(child["commandName"])
                walk(child)
                assert "Example" in (child.get("discussion") or "Example" if child.get("subcommands") else child["discussion"])
    walk(dump["command"])
    text = manual("clat-agent.8")
    told = set(re.findall(r"--([a-z][a-z0-9-]*)", text))
    assert told - {"now"} == options - {"version"}, "of systemctl enable --now no more than that"
    assert all(re.search(rf"^ +{command}\b|clat-agent {command}\b|[ |]{command}\b", text, re.M) for command in commands)


@pytest.mark.skipif(not shutil.which("man") or not shutil.which("groff"), reason="no man and groff here")
def test_the_manual_knows_every_key_and_no_other(tmp_path):
    # The agent itself tells which keys there are.
    (tmp_path / "top.toml").write_text("x-y-z = 1\n[[interface]]\nname = 'a'\nx-y-z = 1\n")
    said = subprocess.run([agent.binary(), "config", "check", tmp_path / "top.toml"], capture_output=True, text=True).stderr
    keys = set(re.findall(r"[a-z0-9-]+", " ".join(re.findall(r"allowed here: (.*)", said))))
    told = set(re.findall(r"^ {5}([a-z0-9-]+)(?: = .*)?$", manual("clat-agent.toml.5"), re.M))
    assert told == keys
    example = re.search(r"\.Bd.*?\n(.*?)\.Ed", (agent.REPOSITORY / "docs/man/clat-agent.toml.5").read_text(), re.S)[1]
    (tmp_path / "good.toml").write_text(example)
    subprocess.run([agent.binary(), "config", "check", tmp_path / "good.toml"], check=True)


def test_the_service_manager_is_told(lab):
    inbox = lab.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(inbox))
        manager.settimeout(20)
        os.environ |= {"NOTIFY_SOCKET": str(inbox), "WATCHDOG_USEC": "400000"}
        try:
            running = lab.agent()
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        heard = []
        def until(word):
            while word not in heard:
                heard.append(manager.recv(4096).decode())
        until("READY=1")
        until("STATUS=eth0 on")
        for _ in range(3):
            heard.clear()
            until("WATCHDOG=1")
        running.process.send_signal(signal.SIGTERM)
        until("STOPPING=1")
        assert running.wait() == 0


@needs_users
def test_it_needs_three_capabilities_and_no_root(lab):
    running = lab.agent("--interface", "eth0", wrapper=agent.without_root(lab.directory))
    running.wait_for("on")
    assert "1 received" in lab.laptop.run(["ping", "-c1", "-W5", lab.SERVER]).stdout
    assert (lab.directory / "state/secret").stat().st_uid == 65534
    assert running.stop() == 0


def make(*words):
    """make, with the binary under test as the one that was built."""
    return subprocess.run(["make", "-s", "-C", agent.REPOSITORY, f"CLAT_AGENT={agent.binary()}", *words],
                          capture_output=True, text=True, check=True)


@pytest.mark.parametrize("manager, words, variables", [
    ("NetworkManager", ["eth0", "dhcp6-change"], {"DHCP6_DHCP6_NAME_SERVERS": "2001:db8::53 2001:db8::54"}),
    # With an address of DHCPv6, and without, which is what goes with autoconfiguration.
    ("dhcpcd", [], {"interface": "eth0", "reason": "BOUND6", "new_dhcp6_name_servers": "2001:db8::53 2001:db8::54"}),
    ("dhcpcd", [], {"interface": "eth0", "reason": "INFORM6", "new_dhcp6_name_servers": "2001:db8::53 2001:db8::54"}),
    ("networkd-dispatcher", [], {"IFACE": "eth0", "STATE": "routable"}),
])
def test_hooks_tell_what_dhcpv6_told(tmp_path, manager, words, variables):
    """systemd-networkd's resolvers the agent finds in its files."""
    (tmp_path / "clat-agent").write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    (tmp_path / "clat-agent").chmod(0o755)
    hook = agent.REPOSITORY / "contrib" / manager / "50-clat-agent"
    # dhcpcd sources its hooks: they may neither end nor change its shell.
    command = f'set -eu; set -- kept; . {hook}; echo "$1"' if manager == "dhcpcd" else f"{hook} {' '.join(words)} || :"
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True,
                          env={"PATH": f"{tmp_path}:{os.environ['PATH']}"} | variables).stdout.split("\n")
    servers = "" if manager == "networkd-dispatcher" else " --resolver 2001:db8::53 --resolver 2001:db8::54"
    assert said[0] == f"renew --quiet eth0{servers}"
    assert said[1] == ("kept" if manager == "dhcpcd" else "")
    # After the program was removed, and the hook was not.
    absent = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env={"PATH": "/nonexistent"} | variables)
    assert absent.returncode == 0 and "clat-agent" not in absent.stdout + absent.stderr


def test_install_and_uninstall(tmp_path):
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/clat")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert {"opt/clat/sbin/clat-agent", "opt/clat/share/man/man8/clat-agent.8"} < files
    unit = (tmp_path / "opt/clat/lib/systemd/system/clat-agent.service").read_text()
    assert "ExecStart=/opt/clat/sbin/clat-agent run\n" in unit and "@SBINDIR@" not in unit
    completion = tmp_path / "opt/clat/share/bash-completion/completions/clat-agent"
    words = subprocess.run(["bash", "-c", f". {completion}; complete -p clat-agent"], capture_output=True, text=True, check=True)
    assert "clat-agent" in words.stdout
    for script in ("openrc/clat-agent", "runit/run"):
        assert "/opt/clat/sbin/clat-agent" in (tmp_path / "opt/clat/share/doc/clat-agent/contrib" / script).read_text()
    # What the README points to is where it points.
    readme = tmp_path / "opt/clat/share/doc/clat-agent/README.md"
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme.read_text())
    missing = {link for link in links if not (readme.parent / link).exists()}
    # For those who have the source.
    assert missing <= {"CONTRIBUTING.md", "Tests/Lab/README.md"} and len(links) > 5
    named = {name for text in readme.parent.rglob("*.md") for name in re.findall(r"`(contrib/[\w./-]*\w)", text.read_text())}
    assert len(named) > 4 and not {name for name in named if not (readme.parent / name).exists()}
    # The runtime directory outlives the service.
    (tmp_path / "run/clat-agent").mkdir(parents=True)
    (tmp_path / "run/clat-agent/disabled").write_text("eth0\n")
    make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/opt/clat")
    assert not (tmp_path / "run/clat-agent").exists()
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("lintian") or not shutil.which("dpkg-shlibdeps"), reason="no lintian, dpkg-dev here")
def test_the_debian_package_is_in_order():
    if "libswiftCore" in subprocess.run(["readelf", "-d", agent.binary()], capture_output=True, text=True).stdout:
        pytest.skip("the binary needs Swift at run time: this is not a release build")
    make("deb")
    package, = (agent.REPOSITORY / ".build-deb").glob("*.deb")
    lint = subprocess.run(["lintian", "--fail-on", "error,warning", package], capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout
