"""A real 802.11 station: mac80211_hwsim's simulated radios, hostapd's access points, wpa_supplicant on the laptop.

An access point is a port of a site's switch, so that all behind it is the lab as ever. The laptop's cables are out.
"""

import re
import time
import types

import pytest

import guest
from lab import Lab
from namespace import wait_until

pytestmark = pytest.mark.agent

STATION = "wlan2"
SECRET = "only simulated"
# Whether a link is Wi-Fi is told by sysfs, which shows the namespace it was mounted in.
OWN_SYSFS = ["unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$0" "$@"']


class AccessPoint:
    """hostapd on one radio, bridged to a site's switch."""

    def __init__(self, lab, number, name, channel, site):
        self.name, self.interface, self.frequency = name, f"wlan{number}", 2407 + 5 * channel
        guest.run("iw", "phy", f"phy{number}", "set", "netns", "name", lab.switch.name)
        path = lab.directory / f"hostapd-{number}.conf"
        path.write_text("\n".join([
            f"interface={self.interface}", f"bridge=lan{site.suffix}", f"ssid={name}", f"channel={channel}", "hw_mode=g", "wpa=2",
            "wpa_key_mgmt=WPA-PSK", "rsn_pairwise=CCMP", f"wpa_passphrase={SECRET}", ""]))
        log = open(lab.directory / f"hostapd-{number}.log", "w+")
        self._process = lab.switch.popen(["hostapd", path], stdout=log, stderr=log)
        wait_until(lambda: f"{self.interface}: AP-ENABLED" in (log.seek(0) or log.read()), 20, what=f"hostapd for {name}")
        self.address = guest.link(lab.switch, self.interface)["address"]

    def close(self):
        """The access point goes."""
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="module")
def air():
    """Two access points of one operator's network name, and one of each's own; all but wpa_supplicant in place."""
    guest.run("modprobe", "mac80211_hwsim", "radios=4")
    with Lab() as lab:
        other = lab.add_site()
        guest.run("iw", "phy", "phy2", "set", "netns", "name", lab.laptop.name)
        lab.laptop.ip("link set eth0 down\nlink set eth1 down")
        home, away = AccessPoint(lab, 0, "home", 1, lab.site), AccessPoint(lab, 1, "away", 6, other)
        yield types.SimpleNamespace(lab=lab, laptop=lab.laptop, home=home, away=away, other=other)
        for text in lab.directory.glob("*.log"):
            print(text, text.read_text(errors="replace")[-1500:], sep="\n")
    guest.run("modprobe", "-r", "mac80211_hwsim")


@pytest.fixture
def station(air):
    """wpa_supplicant, associated at home."""
    path = air.lab.directory / "wpa.conf"
    control = air.lab.directory / "wpa"
    path.write_text(f"ctrl_interface={control}\n" + "".join(
        f'network={{\nssid="{point.name}"\npsk="{SECRET}"\nscan_freq={point.frequency}\n}}\n' for point in (air.home, air.away)))
    log = open(air.lab.directory / "wpa.log", "w")
    process = air.laptop.popen(["wpa_supplicant", "-i", STATION, "-c", path], stdout=log, stderr=log)
    station = Station(air, control)
    wait_until(control.exists, 20, what="wpa_supplicant")
    station.join(air.home, number=0)
    yield station
    process.terminate()
    process.wait(10)


class Station:
    def __init__(self, air, control):
        self.air, self.control = air, control

    def tell(self, *words):
        """A word to wpa_supplicant."""
        said = self.air.laptop.run(["wpa_cli", "-p", self.control, "-i", STATION, *words], check=True).stdout
        assert "FAIL" not in said, said
        return said

    def is_joined(self, point):
        said = self.tell("status")
        return "wpa_state=COMPLETED" in said and f"ssid={point.name}" in said

    def join(self, point, number):
        self.tell("select_network", str(number))
        wait_until(lambda: self.is_joined(point), 30, interval=0.2, what=f"association with {point.name}")


def works(lab, count=2):
    ping = lab.laptop.run(["ping", "-n", f"-c{count}", "-i0.2", "-W5", Lab.SERVER])
    return f" {count} received" in ping.stdout


def start(air, *arguments):
    return air.lab.agent(*arguments, interfaces=(STATION,), wrapper=OWN_SYSFS)


def test_ipv4_works_over_an_ipvlan(air, station):
    agent = start(air)
    entry = agent.wait_for("on", interface=STATION, timeout=40)
    assert entry["uplinkKind"] == "ipvlan" and entry["pref64"] == air.lab.site.pref64
    assert works(air.lab, 4)
    # From outside too, as its neighbours find it through the access point.
    router = air.lab.site.router.namespace
    router.run(["ip", "-6", "neighbour", "flush", "dev", "lan"])
    assert " 2 received" in router.run(["ping", "-n", "-c2", "-W5", entry["ipv6Address"]]).stdout
    assert agent.stop() == 0, agent.log


def test_disconnected_and_reconnected_it_has_the_same_address(air, station):
    agent = start(air)
    before = agent.wait_for("on", interface=STATION, timeout=40)
    station.tell("disconnect")
    assert agent.wait_for("off", interface=STATION)["reason"]["code"] == "no-carrier"
    station.tell("reconnect")
    after = agent.wait_for("on", interface=STATION, timeout=40)
    assert after["ipv6Address"] == before["ipv6Address"]
    assert works(air.lab)
    assert agent.stop() == 0, agent.log


def test_another_network_brings_another_prefix_and_pref64(air, station):
    agent = start(air)
    first = agent.wait_for("on", interface=STATION, timeout=40)
    station.join(air.away, number=1)

    def arrived():
        entry = agent.interface(STATION)
        return entry if entry and entry["state"] == "on" and entry["pref64"] == air.other.pref64 else None
    second = wait_until(arrived, timeout=40, what="the other network's PREF64")
    assert second["ipv6Address"] != first["ipv6Address"]
    assert second["ipv6Address"].startswith(str(air.other.lan.network_address).rstrip(":"))
    assert works(air.lab)
    station.join(air.home, number=0)
    back = wait_until(lambda: (entry := agent.wait_for("on", interface=STATION, timeout=40))["pref64"] == air.lab.site.pref64
                      and entry, timeout=40, what="the first network's PREF64")
    assert back["ipv6Address"] == first["ipv6Address"], "the same network gives the same address"
    assert works(air.lab)
    assert agent.stop() == 0, agent.log


def test_roaming_to_another_network_of_the_same_name(air, station):
    """A second access point of the first one's name that leads elsewhere. The station does not disconnect; it roams."""
    agent = start(air, "--log-level", "debug")
    first = agent.wait_for("on", interface=STATION, timeout=40)
    assert "has associated" not in agent.log
    twin = AccessPoint(air.lab, 3, air.home.name, 11, air.other)
    try:
        def is_seen():
            air.laptop.run(["wpa_cli", "-p", station.control, "-i", STATION, "scan", f"freq={twin.frequency}"])
            time.sleep(1)
            return twin.address in station.tell("scan_results")
        wait_until(is_seen, 30, what="the other access point")

        def has_roamed():
            said = station.tell("status")
            # Where the exchange takes too long the station gives up, and goes back to where it was.
            if "wpa_state=COMPLETED" in said and f"bssid={twin.address}" not in said:
                station.tell("roam", twin.address)
            return "wpa_state=COMPLETED" in said and f"bssid={twin.address}" in said
        wait_until(has_roamed, 60, interval=1, what="association with the other access point")
        begun = time.monotonic()

        def arrived():
            entry = agent.interface(STATION)
            return entry if entry and entry["state"] == "on" and entry["pref64"] == air.other.pref64 else None
        second = wait_until(arrived, timeout=40, what="the other network's PREF64")
        print(f"IPv4 by the other network {time.monotonic() - begun:.1f} s after the association")
        assert second["ipv6Address"].startswith(str(air.other.lan.network_address).rstrip(":"))
        assert second["ipv6Address"] != first["ipv6Address"]
        # hwsim loses carrier for a moment and tells so. Hardware that roams by itself does not; then it is by this that we know.
        assert f"{STATION}: the station has associated with an access point" in agent.log
        wait_until(lambda: works(air.lab), timeout=20, what="IPv4")
    finally:
        twin.close()
    # And back, as the second access point is no more.
    wait_until(lambda: (entry := agent.interface(STATION)) and entry["state"] == "on"
               and entry["pref64"] == air.lab.site.pref64, timeout=60, what="the first network's PREF64")
    wait_until(lambda: works(air.lab), timeout=20, what="IPv4")
    assert agent.stop() == 0, agent.log


def test_a_macvlan_does_not_work_there(air, station):
    """An access point knows one hardware address for each station: nothing of another one comes through. What is not chosen is tried here
    by hand; an ipvlan in its place does work."""
    lan, router = air.lab.site.lan, air.lab.site.router
    received = {}
    for kind in ("macvlan", "ipvlan"):
        air.laptop.ip(f"""
            link add link {STATION} name by-hand type {kind} mode {"bridge" if kind == "macvlan" else "l2"}
            address add {lan[0xBAD]}/64 dev by-hand nodad
            link set by-hand up
        """)
        try:
            wait_until(lambda: "LOWER_UP" in air.laptop.run(["ip", "link", "show", "dev", "by-hand"]).stdout, what="its carrier")
            ping = air.laptop.run(["ping", "-n", "-c4", "-i0.5", "-W5", "-I", "by-hand", router.address]).stdout
            received[kind] = int(re.search(r"(\d+) received", ping)[1])
        finally:
            air.laptop.ip("link del by-hand")
    assert received["macvlan"] == 0 and received["ipvlan"] > 0, received


def test_no_macvlan_where_it_cannot_work(air, station):
    with guest.no_ipvlan():
        agent = start(air)
        entry = wait_until(lambda: (entry := agent.interface(STATION)) and entry["reason"]["code"] == "step-failed" and entry,
                           timeout=40, what="a failed step")
        assert re.search(r"no ipvlan.*Wi-Fi carries no macvlan", entry["reason"]["sentence"])
        # So a DHCPv4 client may not do without its lease there, also once it is on another network.
        assert not entry["ipv6OnlyCapable"]
        station.tell("disconnect")
        assert not agent.wait_until(lambda entry: entry["reason"]["code"] == "no-carrier", "no carrier", STATION)["ipv6OnlyCapable"]
        assert agent.stop() == 0, agent.log
