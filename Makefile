# clat-agent: `make demo` shows it, `make check` proves it, `make build` builds it. As root where namespaces are made.
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

# The C library and runtime of Swift are linked in: the machine that runs clat-agent needs no Swift.
RELEASE := -c release --static-swift-stdlib
BINARY := .build/release/clat-agent

BUILD_PACKAGES := libmnl-dev libcap-dev libbpf-dev libmd-dev libc-ares-dev linux-libc-dev pkg-config
DEB_PACKAGES := dpkg-dev lintian
LAB_PACKAGES := python3 python3-pytest python3-pytest-xdist strace iproute2 iputils-ping ndisc6 traceroute tcpdump ethtool nftables tayga curl bind9-dnsutils unbound \
	man-db groff-base zsh fish $(DEB_PACKAGES)
BENCH_PACKAGES := iperf3
VM_PACKAGES := qemu-system-x86 busybox-static cpio kmod

.PHONY: all deps swift lab-deps vm-deps build demo check check-vm bench bench-tool bench-vm dist faults fuzz lint fmt clean install soak uninstall deb

all: build

# Each installs only what is missing, so that without it nothing needs root or a network.
define need
$(Q)missing=; for p in $(1); do dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then echo "installing:$$missing"; \
  { command -v apt-get >/dev/null || { echo "this is not Debian: install the like of these yourself:$$missing" >&2; exit 69; }; }; \
  [ "$$(id -u)" = 0 ] || { echo "run this as root once, or: apt-get install$$missing" >&2; exit 77; }; \
  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; fi
endef

deps:
	$(call need,$(BUILD_PACKAGES))

swift:
	$(Q)command -v swift >/dev/null || { echo "Swift 6.2 or later is needed to build: see swift.org/install" >&2; exit 69; }

lab-deps: deps
	$(call need,$(LAB_PACKAGES))

vm-deps: deps
	$(call need,$(VM_PACKAGES))

build: deps swift
	$(Q)swift build $(RELEASE) --product clat-agent

# Counts allocations and small datagrams, for the benchmark and its tests.
bench-tool: deps swift
	$(Q)swift build $(RELEASE) --product translator-bench

demo: lab-deps build
	$(Q)CLAT_AGENT=$(CURDIR)/$(BINARY) $(PYTHON) Tests/Lab/demo.py

# Ends with "N passed, N failed".
check: lab-deps swift
	$(Q)Tests/check

# Tests that need a distribution's kernel, in software emulation; without qemu they are skipped.
check-vm: lab-deps build
	$(Q)$(MAKE) -s vm-deps || true
	$(Q)Tests/VM/run

# Ten minutes, on a machine that does nothing else. WRITE=1 writes docs/performance.md, if the machine was quiet and there were
# five rounds, or with FORCE=1; SWEEP=1 compares lengths of the TUN's queue too, which takes as long again.
ROUNDS ?= 5
SECONDS ?= 2
IDLE ?= 60
bench: lab-deps build bench-tool
	$(call need,$(BENCH_PACKAGES))
	$(Q)CLAT_AGENT=$(CURDIR)/$(BINARY) $(PYTHON) -B Tests/Bench/bench.py --rounds $(ROUNDS) --seconds $(SECONDS) \
		--idle $(IDLE) $(if $(filter 1,$(WRITE)),--write) $(if $(filter 1,$(FORCE)),--force) $(if $(filter 1,$(SWEEP)),--sweep)

# Fuzzes each parser for that many seconds, or only TARGET; ends with libFuzzer's figures, and fails where it finds a crash.
FUZZ_SECONDS := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),60)
fuzz: deps swift
	$(Q)Tests/Fuzz/fuzz.sh $(FUZZ_SECONDS) $(TARGET)

# The same on Debian's kernel in emulation, where Jool can be had; a quarter of an hour.
bench-vm: lab-deps build bench-tool
	$(call need,$(BENCH_PACKAGES) $(VM_PACKAGES))
	$(Q)Tests/VM/bench --rounds $(ROUNDS) --seconds $(SECONDS) --idle 0

# Every system call of the agent's effects made to fail, at each place, in turn: ten minutes. ONLY=start/sendto/* chooses.
JOBS ?= 5
faults: lab-deps build
	$(Q)CLAT_AGENT=$(CURDIR)/$(BINARY) $(PYTHON) -B Tests/Lab/every_fault.py --jobs $(JOBS) $(if $(ONLY),--only '$(ONLY)')

# Traffic while the network is renumbered, flooded, cut and the agent restarted at random; ends with what has grown.
MINUTES ?= 10
soak: lab-deps build
	$(Q)CLAT_AGENT=$(CURDIR)/$(BINARY) $(PYTHON) -B Tests/Lab/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# The sources of the commit that is checked out, the same octets wherever and whenever.
dist:
	$(Q)contrib/dist/build .build-dist

lint:
	$(Q)swift format lint --strict --parallel -r Sources Tests Plugins Package.swift

fmt:
	$(Q)swift format -i --parallel -r Sources Tests Plugins Package.swift

clean:
	$(Q)rm -rf .build .build-*

PREFIX ?= /usr/local
UNITDIR ?= $(PREFIX)/lib/systemd/system
NETWORKDIR ?= $(PREFIX)/lib/systemd/network
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
MANDIR ?= $(PREFIX)/share/man
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
DOCDIR ?= $(PREFIX)/share/doc/clat-agent
# For other managers of services and networks, and what the README points to.
CONTRIB := $(wildcard contrib/apparmor/* contrib/dhcpcd/* contrib/NetworkManager/* contrib/networkd-dispatcher/* contrib/openrc/* contrib/option-108/* \
	contrib/runit/*)
DOCUMENTS := README.md CHANGELOG.md SECURITY.md $(wildcard docs/*.md) $(wildcard docs/*.svg) docs/status.schema.json
INSTALLED = $(PREFIX)/sbin/clat-agent $(UNITDIR)/clat-agent.service $(NETWORKDIR)/10-clat-agent.network $(SYSUSERSDIR)/clat-agent.conf \
	$(MANDIR)/man8/clat-agent.8 $(MANDIR)/man5/clat-agent.toml.5 \
	$(BASHDIR)/clat-agent $(ZSHDIR)/_clat-agent $(FISHDIR)/clat-agent.fish \
	$(DOCDIR)/org.clatagent.varlink $(addprefix $(DOCDIR)/,$(DOCUMENTS) $(CONTRIB))
PROGRAM := $(or $(CLAT_AGENT),$(BINARY))

# Builds nothing, as root need not have Swift: `make build` comes first. CLAT_AGENT=FILE installs that binary.
install:
	$(Q)[ -x $(PROGRAM) ] || { echo "there is no $(PROGRAM) to install; build it first: make build" >&2; exit 66; }
	$(Q)install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/sbin/clat-agent
	$(Q)install -d $(sort $(dir $(addprefix $(DESTDIR),$(INSTALLED))))
	$(Q)install -m 644 contrib/systemd/clat-agent.sysusers $(DESTDIR)$(SYSUSERSDIR)/clat-agent.conf
	$(Q)install -m 644 contrib/systemd/10-clat-agent.network $(DESTDIR)$(NETWORKDIR)/
	$(Q)install -m 644 docs/man/clat-agent.8 $(DESTDIR)$(MANDIR)/man8/
	$(Q)install -m 644 docs/man/clat-agent.toml.5 $(DESTDIR)$(MANDIR)/man5/
	$(Q)for shell in bash:$(BASHDIR)/clat-agent zsh:$(ZSHDIR)/_clat-agent fish:$(FISHDIR)/clat-agent.fish; do \
	  $(PROGRAM) --generate-completion-script $${shell%%:*} | sed '1{/^#!/d}' > $(DESTDIR)$${shell#*:}; done
	$(Q)install -m 644 Sources/ClatAgent/Control/org.clatagent.varlink $(DESTDIR)$(DOCDIR)/
	$(Q)for file in $(DOCUMENTS); do install -m 644 $$file $(DESTDIR)$(DOCDIR)/$$file; done
	$(Q)sed 's,@SBINDIR@,$(PREFIX)/sbin,' contrib/systemd/clat-agent.service > $(DESTDIR)$(UNITDIR)/clat-agent.service
	$(Q)for file in $(CONTRIB); do sed 's,@SBINDIR@,$(PREFIX)/sbin,' $$file > $(DESTDIR)$(DOCDIR)/$$file; done
	$(Q)install -d $(DESTDIR)/etc/clat-agent
ifeq ($(DESTDIR),)
	$(Q)if command -v systemd-sysusers >/dev/null; then systemd-sysusers clat-agent.conf; fi
	$(Q)if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
endif

# The configuration and the key of the addresses stay: they are yours.
uninstall:
	$(Q)rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	$(Q)rm -rf $(DESTDIR)$(DOCDIR)
	$(Q)rm -f $(DESTDIR)/run/clat-agent/disabled
	$(Q)rmdir $(DESTDIR)/etc/clat-agent $(DESTDIR)/run/clat-agent 2>/dev/null || true

# A Debian package, in .build-deb.
deb: $(if $(CLAT_AGENT),,build)
	$(call need,$(DEB_PACKAGES))
	$(Q)CLAT_AGENT=$(if $(CLAT_AGENT),$(CLAT_AGENT),$(CURDIR)/$(BINARY)) contrib/deb/build .build-deb
