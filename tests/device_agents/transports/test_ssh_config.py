"""OpenSSH's configuration means what `ssh -G` says that it means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.device_agents.transports import openssh_client, ssh_config_files
from joulemap.device_agents.transports.ssh_config import UndecidedError, read_options
from joulemap.device_agents.transports.ssh_config_words import (
    is_listed,
    quoted,
    seconds_of,
    split_words,
)

from ..processes import process_state
from . import ssh_config_oracle as oracle


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "config"
    with oracle.own_configuration(path):
        yield path


# Host, configuration. ONE and TWO stand for files beside it.
CASES = {
    "comment after a host's name": ("pi", "Host pi\n HostName 10.0.0.7 # shelf 2\n Port 22 # x\n"),
    "comment after a key": ("pi", "Host pi\n IdentityFile ~/.ssh/k # my key\n"),
    "comment with an apostrophe": ("pi", "Host pi # Bob's\n HostName 10.0.0.7\n"),
    "comment after Match all": ("pi", "Match all # cloud\n User cloud\nHost pi\n User me\n"),
    "comment after Match": ("pi", "Match originalhost pi # lab only\n User cloud\n"),
    "comment without a space": ("p#i", "Host p#i #x\n User a#b\n"),
    "comment that a quote hides": ("pi", "Host pi\n User '#a' #b\n"),
    "comment alone": ("pi", "# Host pi\n   # Port 1\n\t#\nHost pi\n Port 2\n"),
    "quotes of both kinds": ("pi", 'Host \'pi\'\n Port "2222"\n User "root"\n'),
    "a quote inside of a word": ("pi", "Host p\"i\"\n User a'b'c\n"),
    "a quoted keyword": ("pi", '"Host" pi\n "Port" 2222\n'),
    "escapes": ("pi", "Host pi\n User a\\ b\\\\c\\'d\\xe\n"),
    "escapes in quotes": ("pi", 'Host pi\n User "a\\"b\\ c"\n'),
    "a quote that is not closed": ("pi", "Host pi\n User 'a\n"),
    "a quote that is not closed elsewhere": ("pi", "Host other\n User 'a\nHost pi\n Port 2\n"),
    "a keyword's quote that is not closed": ("pi", '"Host pi\nPort 7\n'),
    "equals signs": ("board3", 'Host=board3\n\tHostName=10.0.3.3\n Port = 2203\n User= "root"\n'),
    "two equals signs": ("pi", "Host pi\n Port == 22\n"),
    "upper and lower case": ("pi", "HOST pi\n hOsTnAmE A.Lan\n pORT 22\n"),
    "a host's case": ("PI", "Host pi\n Port 1\nHost PI\n Port 2\nMatch host pi\n User m\n"),
    "carriage returns": ("pi", "Host pi\r\n HostName 10.0.0.7\r\n Port 2222 \f\r\n"),
    "a byte order mark": ("pi", "\ufeffHost pi\n Port 2222\n"),
    "other white space is none": ("pi", "Host pi\n User a\u2028b\u00a0c\n"),
    "a word more": ("pi", "Port 22 33\n"),
    "no word": ("pi", "Host pi\n HostName\n"),
    "an empty word": ("pi", 'Host pi\n HostName ""\n'),
    "patterns": ("board3", "Host board?\n Port 1\nHost b*3 x\n User a\nHost *.x\n User b\n"),
    "a negated pattern": ("board9", "Host board* !board9\n Port 1\nHost !x *\n User u\n"),
    "a negated pattern alone": ("pi", "Host !other\n Port 1\n"),
    "the first value holds": ("pi", "Host pi\n Port 1\n Port 2\nHost *\n Port 3\n User u\n"),
    "keys add up": ("pi", "IdentityFile ~/a\nHost pi\n IdentityFile ~/b\n IdentityFile ~/a\n"),
    "no keys": ("pi", "Host pi\n IdentityFile none\nHost *\n IdentityFile ~/x\n"),
    "tokens of keys": ("pi", "Host pi\n HostName 10.0.0.7\n IdentityFile %d/.ssh/%h_%r\n"),
    "certificates": ("pi", "CertificateFile ~/c.pub\nCertificateFile ${HOME}/d.pub\n"),
    "obsolete names": ("pi", "IdentityFile2 ~/x\nPubkeyAcceptedKeyTypes ssh-ed25519\n"),
    "variables": ("pi", "UserKnownHostsFile ${HOME}/x %d/y\nIdentityAgent ${HOME}/%n.sock\n"),
    "a variable that is not set": ("pi", "UserKnownHostsFile ${JOULEMAP_NONE}/x\n"),
    "an agent's variable": ("pi", "IdentityAgent $JOULEMAP_NONE\n"),
    "an agent's variable that is none": ("pi", "IdentityAgent $A-b\n"),
    "an agent's folder with spaces": ("pi", 'IdentityAgent "~/Library/a b/agent.sock"\n'),
    "all tokens": ("pi", "Host pi\n HostName h\n UserKnownHostsFile %C %d%h%i%k%L%l%n%p%r%u%%\n"),
    "tokens of a host": ("vm", "Host vm\n HostName %h.x%%y.corp\n"),
    "a token that a host has not": ("vm", "Host vm\n HostName %n.corp\n"),
    "known hosts": ("pi", 'UserKnownHostsFile /a "/b c" ~/d\nGlobalKnownHostsFile ~/g %h\n'),
    "no known hosts": ("pi", "UserKnownHostsFile none\nGlobalKnownHostsFile none\n"),
    "known hosts that are a comment": ("pi", "UserKnownHostsFile # a\nUserKnownHostsFile /b\n"),
    "a port that is a comment": ("pi", "Port # 22\n"),
    "known hosts and none": ("pi", "UserKnownHostsFile /a none\n"),
    "a service's port": ("pi", "Host pi\n Port ssh\n"),
    "a port that is none": ("pi", "Host other\n Port 70000\n"),
    "a service that is none": ("pi", "Port nosuchservice\n"),
    "a domain's user": ("gpu", "Host gpu\n HostName 10.0.0.8\n User CORP\\alice\n"),
    "a slash in an alias": ("Rasp/Arch", "Host Rasp/Arch\n HostName alarm.local\n"),
    "an address of version 6": ("six", "Host six\n HostName fe80::1%%eth0\n Port 2200\n"),
    "a zone that is a token": ("six", "Host six\n HostName fe80::1%eth0\n"),
    "a proxy's command": ("pi", "Host pi\n ProxyCommand nc -x 'a b' %h %p # way\n Port 2\n"),
    "a proxy's command after an equals sign": ("pi", 'ProxyCommand = "nc" %h %p\n'),
    "a jump": ("far", "Host far\n ProxyJump me@[fd00::5]:2201,you@gate:2202\n"),
    "a jump as a URL": ("far", "Host far\n ProxyJump ssh://me@gate:2201\n"),
    "no jump": ("pi", "Host pi\n ProxyJump none\nHost *\n ProxyJump gate\n"),
    "a jump after a command": ("pi", "Host pi\n ProxyCommand a\nHost *\n ProxyJump gate\n"),
    "a command after a jump": ("pi", "Host pi\n ProxyJump gate\nHost *\n ProxyCommand a\n"),
    "no command, then a jump": ("pi", "Host pi\n ProxyCommand none\nHost *\n ProxyJump gate\n"),
    "a key's alias": ("pi", "Host pi\n HostName h\n HostKeyAlias AbC%h\n"),
    "a family and an address": ("pi", "AddressFamily inet6\nBindAddress 1.2.3.4\n"),
    "a family that is none": ("pi", "AddressFamily ipv6\n"),
    "times": ("pi", "ConnectTimeout 1m30s\nServerAliveInterval 2\n"),
    "no time": ("pi", "ConnectTimeout none\nServerAliveInterval 1h\n"),
    "a time that is none": ("pi", "ConnectTimeout 1x\n"),
    "yes and no": ("pi", "IdentitiesOnly TRUE\nCompression yes\nProxyUseFdpass false\n"),
    "neither yes nor no": ("pi", "IdentitiesOnly maybe\n"),
    "an option that nobody knows": ("pi", "Host pi\n Fooo x\n"),
    "an option that is passed over": (
        "pi",
        "IgnoreUnknown Foo*,!Fooo,Use*\nFoox 'a\"b' c\nUseX y\n",
    ),
    "an option that is not": ("pi", "IgnoreUnknown Foo*,!Fooo\nFooo y\n"),
    "an option passed over too late": ("pi", "Foo x\nIgnoreUnknown Foo\n"),
    "many others": (
        "pi",
        (
            "Host pi\n ControlMaster auto\n ControlPath ~/.ssh/cm-%r@%h:%p\n ControlPersist 10m\n"
            " RequestTTY force\n RemoteCommand tmux new -A -s x\n SendEnv LANG LC_*\n LogLevel FATAL\n"
            " StrictHostKeyChecking no\n PasswordAuthentication no\n GSSAPIAuthentication yes\n"
        ),
    ),
    "Match host": (
        "pi",
        "Host pi\n HostName a.lan\nMatch host *.lan\n User l\nMatch host pi\n Port 1\n",
    ),
    "Match host and more": ("pi", "Match host p*,!pi user root\n Port 1\nMatch user r*\n Port 2\n"),
    "Match not": ("pi", "Match !host pi\n Port 1\nMatch !user x originalhost pi\n Port 2\n"),
    "Match localuser": (
        "pi",
        "Match localuser nobody-here\n Port 1\nMatch !localuser x\n Port 2\n",
    ),
    "Match with equals signs": ("pi", 'Match host=pi user="root"\n Port 1\n'),
    "Match with quotes": ("pi", 'Match host "a,pi" # x\n Port 1\n'),
    "Match user set before": (
        "pi",
        "Host pi\n User u\nMatch user u\n Port 1\nMatch user root\n Port 2\n",
    ),
    "Match final": (
        "pi",
        "Match final host 10.*\n Port 9\nHost 10.*\n User f\nHost pi\n HostName 10.0.0.7\n",
    ),
    "Match not final": ("pi", "Match !final\n Port 9\nHost pi\n HostName 10.0.0.7\n"),
    "Match canonical": ("pi", "Match canonical\n Port 9\nMatch canonical all\n Port 8\n"),
    "Match all twice": ("pi", "Match host pi user root all\n Port 1\n"),
    "Match nothing": ("pi", "Match # x\n Port 1\n"),
    "Match without a word": ("pi", "Match host\n Port 1\n"),
    "Match what nobody knows": ("pi", "Match weather fine\n Port 1\n"),
    "Match a program that succeeds": ("pi", 'Match host pi exec "true"\n HostName 10.9.9.9\n'),
    "Match a program that fails": ("pi", "Match exec false\n Port 1\nMatch !exec false\n Port 2\n"),
    "Match a program with tokens": (
        "pi",
        (
            'Host pi\n HostName h.%h\n User u\n Port 7\nMatch exec "test %n%h%p%r = pih.pi7u"\n'
            " BindAddress 1.1.1.1\n"
        ),
    ),
    "Match a program in single quotes": ("pi", "Match exec 'true'\n Port 1\n"),
    "Match a network": ("pi", "Match localnetwork 127.0.0.0/8\n Port 1\n"),
    "an included file": ("two", "Include ONE\nHost *\n User fallback\n"),
    "included files in a block": ("pi", "Host pi\n Include ONE TWO\n Port 3\n"),
    "included files in another's block": ("pi", "Host other\n Include ONE TWO\nHost pi\n Port 4\n"),
    "an included pattern": ("two", "Include ONE* /none/*\n Port 5\n"),
    "an included block ends with its file": ("pi", "Include TWO\nUser after\n"),
    "an included mistake elsewhere": ("pi", "Host other\n Include BAD\n"),
    "canonical names": ("pi", "CanonicalizeHostname yes\nHost pi\n User plain\n"),
    "canonical names of no domain": ("pi.x", "CanonicalizeHostname yes\nCanonicalDomains none\n"),
    "canonical names that are not found": (
        "localhost",
        (
            "CanonicalizeHostname yes\nCanonicalDomains invalid\nHost localhost\n User p\n"
            "Match canonical\n Port 3\n"
        ),
    ),
    "a canonical name that must be found": (
        "localhost",
        "CanonicalizeHostname yes\nCanonicalDomains invalid\nCanonicalizeFallbackLocal no\n",
    ),
    "canonical names through a proxy": (
        "pi",
        "CanonicalizeHostname yes\nCanonicalDomains invalid\nProxyCommand nc %h %p\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_as_openssh_reads_it(file: Path, name: str) -> None:
    alias, text = CASES[name]
    one, two, bad = file.with_name("one"), file.with_name("two"), file.with_name("bad")
    one.write_text("Host two\n HostName 10.2.2.2\nHost pi\n IdentityFile ~/one\n Port 1\n")
    two.write_text("Match host pi\n IdentityFile ~/two\nHost *\n User star\nHost other\n Port 9\n")
    bad.write_text("Host *\n Port x\n")
    for word, path in (("ONE", one), ("TWO", two), ("BAD", bad)):
        text = text.replace(word, str(path))
    file.write_bytes(text.encode())
    assert oracle.difference(file, alias) is None


# -- at random -------------------------------------------------------------------------------------

NAMES = st.sampled_from(["pi", "pi.lan", "PI", "10.0.0.7", "other", "a-b", "root", "u"])
PATTERNS = st.one_of(NAMES, st.sampled_from(["*", "p*", "?i", "!pi", "!p*", "*.lan", "10.*", "!x"]))
# Words as people write them, and as nobody should.
TEXTS = st.one_of(
    NAMES,
    st.text("ab1 \\'\"#=%,!*?~$", max_size=6),
    st.builds("{}{}{}".format, st.sampled_from("'\""), st.text("a b#\\", max_size=4), st.just('"')),
    st.sampled_from(["22", "ssh", "2222", "none", "yes", "no", "%h", "%n.x", "%%", "~/k", "1m"]),
)
COMMENTS = st.sampled_from(["", "", "", " # x", " #", "#x", "\t# Bob's", "\r", " \f"])
BETWEEN = st.sampled_from([" ", " ", "  ", "\t", "=", " = ", "==", " \t"])
OPTIONS = st.sampled_from(
    [
        *("HostName", "User", "Port", "IdentityFile", "UserKnownHostsFile", "HostKeyAlias"),
        *("IdentitiesOnly", "ProxyJump", "ProxyCommand", "ConnectTimeout", "AddressFamily"),
        *("BindAddress", "IgnoreUnknown", "port", "HOSTNAME", "CertificateFile"),
    ]
)
GOOD = st.one_of(
    st.tuples(st.just("Port"), st.sampled_from(["22", "2222", "7", "ssh"])),
    st.tuples(st.sampled_from(["User", "HostName", "HostKeyAlias", "BindAddress"]), NAMES),
    st.tuples(st.just("HostName"), st.sampled_from(["%h.lan", "x%%h", "10.0.0.7"])),
    st.tuples(
        st.sampled_from(["IdentityFile", "UserKnownHostsFile", "CertificateFile"]),
        st.sampled_from(["~/k", "'a b'", "%d/%n", '"a"b', "a\\ b", "${HOME}/k", "none", "/k#1"]),
    ),
    st.tuples(
        st.sampled_from(["ProxyJump", "ProxyCommand"]), st.sampled_from(["none", "gate", "a,b"])
    ),
    st.tuples(
        st.sampled_from(["ConnectTimeout", "ServerAliveInterval"]), st.sampled_from(["7", "1m"])
    ),
    st.tuples(st.just("IdentitiesOnly"), st.sampled_from(["yes", "FALSE", '"no"'])),
)
HOSTS = st.builds("Host {}".format, st.lists(PATTERNS, min_size=1, max_size=3).map(" ".join))
CRITERIA = st.one_of(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "", "!"]),
        st.sampled_from(["host", "originalhost", "user", "localuser"]),
        st.sampled_from([" ", "=", "  "]),
        st.lists(PATTERNS, min_size=1, max_size=2).map(",".join),
    ),
    st.sampled_from(["final", "!final", "canonical"]),
)
MATCHES = st.builds("Match {}".format, st.lists(CRITERIA, min_size=1, max_size=3).map(" ".join))
GOOD_LINES = st.builds(
    "{}{}".format,
    st.one_of(
        GOOD.map("{0[0]} {0[1]}".format),
        GOOD.map("  {0[0]} = {0[1]}".format),
        HOSTS,
        MATCHES,
        st.sampled_from(["", "# comment", "Include INCLUDED", "Match all", "Host *"]),
    ),
    st.sampled_from(["", "", "", " # x", "\t# Bob's", "\r", " \f"]),
)
LINES = st.one_of(
    GOOD_LINES,
    st.builds("{}{}{}{}".format, OPTIONS, BETWEEN, TEXTS, COMMENTS),
    st.builds("{}{}".format, st.one_of(HOSTS, MATCHES), COMMENTS),
    st.sampled_from(["Match all user root", "Nonsense x", "   "]),
)
CONFIGURATIONS = st.one_of(
    st.lists(GOOD_LINES, min_size=1, max_size=14), st.lists(LINES, min_size=1, max_size=5)
).map("\n".join)


@given(CONFIGURATIONS, CONFIGURATIONS, st.sampled_from(["pi", "PI", "pi.lan", "10.0.0.7"]))
def test_whatever_is_written_is_read_as_openssh_reads_it(
    tmp_path_factory: pytest.TempPathFactory, text: str, included: str, alias: str
) -> None:
    file = tmp_path_factory.mktemp("config") / "config"
    other = file.with_name("included")
    # None includes itself.
    other.write_text(included.replace("Include INCLUDED", "") + "\n", newline="")
    file.write_text(text.replace("INCLUDED", str(other)) + "\n", newline="")
    with oracle.own_configuration(file):
        assert oracle.difference(file, alias) is None, text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=12))
def test_a_word_that_is_quoted_is_read_as_it_was(word: str) -> None:
    if word and not word[0].isspace():
        assert split_words(quoted(word)) == [word]


@given(st.integers(0, 10**8), st.sampled_from("smhdw"))
def test_times_are_read_with_their_units(number: int, unit: str) -> None:
    assert seconds_of(f"{number}{unit}") == number * seconds_of(f"1{unit}")


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not is_listed("a" * 200, "*a" * 60 + "*b")


# -- what only OpenSSH knows -----------------------------------------------------------------------


@pytest.fixture
def without_openssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))


EXEC = 'Match originalhost pi exec "touch {}"\n Port 1\n'


def test_a_program_of_the_configuration_is_run_by_openssh_alone(file: Path) -> None:
    ran = file.with_name("ran")
    file.write_text(EXEC.format(ran))
    assert read_options("other", {}).word("port") is None
    assert not ran.exists(), "what stands before it is not met"
    assert read_options("pi", {}).word("port") == "1"
    assert ran.exists()


def test_a_list_of_hosts_runs_no_program_and_asks_nobody(file: Path) -> None:
    ran = file.with_name("ran")
    for text in (EXEC.format(ran), "CanonicalizeHostname yes\nCanonicalDomains lan\n", "User %u\n"):
        file.write_text(text)
        with pytest.raises(UndecidedError, match="known once it is connected"):
            read_options("pi", {}, may_ask=False)
    assert not ran.exists()


@pytest.mark.usefixtures("without_openssh")
@pytest.mark.parametrize(
    "text",
    [
        'Match exec "touch RAN"\n Port 1\n',
        "Match !exec 'touch RAN'\n Port 1\n",
        "Match localnetwork 10.0.0.0/8\n Port 1\n",
        "CanonicalizeHostname yes\nCanonicalDomains lan\n",
        "Nonsense x\n",
        "User %u\n",
        "Include %d/config\n",
        'Match host "a\\\\b"\n Port 1\n',
    ],
)
def test_without_openssh_nothing_is_guessed(file: Path, text: str) -> None:
    ran = file.with_name("ran")
    file.write_text(text.replace("RAN", str(ran)))
    with pytest.raises(InputError, match=r"OpenSSH") as caught:
        read_options("pi", {})
    assert len(str(caught.value)) < 400
    assert not ran.exists()


@pytest.mark.usefixtures("without_openssh")
def test_without_openssh_the_rest_is_read(file: Path) -> None:
    file.write_text("Match host other exec x\n Port 1\nHost pi # x\n Port ssh\n User CORP\\alice\n")
    options = read_options("pi", {})
    assert (options.word("port"), options.word("user")) == ("ssh", "CORP\\alice")


def test_a_program_that_hangs_ends_with_what_it_started(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh_client, "ASK_TIMEOUT_S", 0.5)
    pid = file.with_name("pid")
    file.write_text(f'Match exec "echo $$ >{pid}; exec sleep 600"\n Port 1\n')
    with pytest.raises(InputError, match=r"does not say within .* Match exec"):
        read_options("pi", {})
    assert process_state(int(pid.read_text())) in ("", "Z", "X")


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o666, 0o622])
def test_a_file_that_others_may_write_is_refused_as_openssh_does(file: Path, mode: int) -> None:
    file.write_text("Port 2222\n")
    file.chmod(mode)
    with pytest.raises(InputError, match=r"other users could change it .*chmod go-w"):
        read_options("pi", {})
    file.chmod(0o644)
    os.chown(file, 65534, 65534)
    with pytest.raises(InputError, match="belongs to another user"):
        read_options("pi", {})


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "large"])
def test_a_file_that_is_none_is_named_at_once(file: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        os.mknod(file, 0o140600)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.write_bytes(b"#" * (1 << 21))
    with pytest.raises(InputError, match=r"no ordinary file|larger than|cannot be read"):
        read_options("pi", {})


def test_nothing_is_no_configuration(file: Path) -> None:
    file.symlink_to(os.devnull)
    assert read_options("pi", {}).values == {}


def test_the_systems_file_comes_after_the_users(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = file.with_name("etc") / "ssh_config"
    (system.parent / "ssh_config.d").mkdir(parents=True)
    (system.parent / "ssh_config.d/x.conf").write_text("Host pi\n User included\n")
    system.write_text("Include ssh_config.d/*.conf\nHost *\n Port 7\n User system\n")
    monkeypatch.setattr(ssh_config_files, "SYSTEM_CONFIG", system)
    file.write_text("Host pi\n Port 2\n")
    options = read_options("pi", {})
    assert (options.word("port"), options.word("user")) == ("2", "included")
    system.write_text("Include ~/x\n")
    with pytest.raises(InputError, match="no file to include"):
        read_options("pi", {})


def test_relative_includes_lie_beside_the_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh/config.d").mkdir(parents=True)
    (tmp_path / ".ssh/config").write_text("Include config.d/*\nInclude ~/more\n")
    (tmp_path / ".ssh/config.d/a").write_text("Host vm # x\n HostName 10.2.2.2\n")
    (tmp_path / "more").write_text("Host *\n User u\n")
    options = read_options("vm", {})
    assert (options.host, options.word("user")) == ("10.2.2.2", "u")
    assert ssh_config_files.named_hosts() == ["vm"]
    assert ssh_config_files.user_config_path() == tmp_path / ".ssh/config"
