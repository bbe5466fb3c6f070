"""The configuration: the example documents every key with its default, and every fault is told at once."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from dicom_node.peers import Role
from twin_scanner.errors import Misconfigured
from twin_scanner.settings import MACHINE_CONFIGURATION, Settings, configuration_file, load_settings
from twin_scanner.settings.configuration import sections_of

pytestmark = pytest.mark.unit

PEER = '[[peers]]\nname = "ct"\nae_title = "CT"\nhost = "10.0.0.5"\n'

TO = '[[destinations]]\nname = "archive"\n'
CALLER = '[[peers]]\nname = "ct"\nae_title = "CT"\naddresses = ["10.0.0.5"]\n'


def keys_of_settings() -> dict[str, object]:
    """Each section.key and its default; a key without one is None, as is one of a list of tables."""
    keys: dict[str, object] = {}
    for section, model in sections_of(Settings).items():
        default = Settings.model_fields[section].default
        values = (
            default.model_dump(mode="json") if isinstance(default, BaseModel) else dict.fromkeys(model.model_fields)
        )
        keys |= {f"{section}.{key}": value for key, value in values.items()}
    return keys


def test_the_example_names_every_key_with_its_default_and_no_other(project: Path) -> None:
    text = (project / "deploy" / "twin-scanner.example.toml").read_text("utf-8")
    uncommented = re.sub(r"^# (?=[a-z_]+ = |\[\[)", "", text, flags=re.MULTILINE)
    documented = {
        f"{section}.{key}": value
        for section, tables in tomllib.loads(uncommented).items()
        for table in (tables if isinstance(tables, list) else [tables])
        for key, value in table.items()
    }
    optional = {key for key, value in keys_of_settings().items() if value is None}
    assert documented.keys() == keys_of_settings().keys()
    assert {k: v for k, v in documented.items() if k not in optional} == {
        k: v for k, v in keys_of_settings().items() if k not in optional
    }
    commented = set(re.findall(r"^# ([a-z_]+) = ", text, flags=re.MULTILINE))
    assert commented == {key.split(".")[1] for key in optional}


def test_every_key_of_the_example_is_explained(project: Path) -> None:
    lines = (project / "deploy" / "twin-scanner.example.toml").read_text("utf-8").splitlines()
    bare = [line for line in lines if re.match(r"^(# )?[a-z_]+ = ", line) and "#" not in line.removeprefix("# ")]
    assert bare == []


def test_the_example_loads(project: Path) -> None:
    assert load_settings(project / "deploy" / "twin-scanner.example.toml") == load_settings(None)


def test_the_configurations_of_the_page_on_peers_load(project: Path, tmp_path: Path) -> None:
    page, file = (project / "docs" / "peers.md").read_text("utf-8"), tmp_path / "page.toml"
    file.write_text("\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)))
    assert [peer.name for peer in load_settings(file).peers] == ["ct-emergency", "pacs"]


def test_all_faults_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        '[node]\nport = 99999\nprot = 1\n[pacs]\nae_title = "LONGER THAN SIXTEEN"\n[twin]\nzone = "Mars/Base"\n'
    )
    monkeypatch.setenv("TWIN_SCANNER__NOED__PORT", "1")
    with pytest.raises(Misconfigured) as caught:
        load_settings(file)
    text = str(caught.value)
    for part in ("node.port", "node.prot", "pacs.ae_title", "twin.zone", "TWIN_SCANNER__NOED__PORT"):
        assert part in text


def test_the_section_of_one_pacs_is_short_for_a_peer(tmp_path: Path) -> None:
    def names(text: str) -> list[str]:
        file = tmp_path / "some.toml"
        file.write_text(text)
        return [peer.name for peer in load_settings(file).known_peers]

    assert names("") == ["pacs"]
    assert names(PEER) == ["ct", "pacs"]
    assert names(PEER.replace("ct", "pacs", 1)) == ["pacs"]
    assert names(f'{PEER}[[destinations]]\nname = "away"\npeer = "ct"') == ["ct"], "another PACS is named"
    assert names(f"[pacs]\nport = 4242\n{PEER}") == ["ct", "pacs"]
    short = load_settings(tmp_path / "some.toml").known_peers[1]
    assert (short.ae_title, short.host, short.port, short.addresses) == ("PACS", "127.0.0.1", 4242, ())
    assert set(short.roles) == {"send_ct", "take_pet", "query", "commit"}


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.toml"
    file.write_text('[node]\nport = 4000\nae_title = "FROMFILE"\n')
    monkeypatch.setenv("TWIN_SCANNER__NODE__PORT", "4001")
    node = load_settings(file).node
    assert (node.port, node.ae_title) == (4001, "FROMFILE")


@pytest.mark.parametrize("text", ["node = [", "\xff"])
def test_what_is_no_toml_is_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Misconfigured, match="is not valid TOML"):
        load_settings(file)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        load_settings(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[node]\nprot = 1", "unknown key node.prot: did you mean port?"),
        ("[noed]\nport = 1", "unknown section noed: did you mean node?"),
        ("[pacs]\nquiet_period_s = 1.0", "unknown key pacs.quiet_period_s: did you mean node.quiet_period_s?"),
        ("port = 1", "unknown section port: the sections are "),
        ("[log]\nxyzzy = 1", "unknown key log.xyzzy: the keys of log are level."),
        ("[node]\nport = 99999", "node.port is 99999: it must be at most 65535."),
        ("[node]\nport = -1", "node.port is -1: it must be at least 0."),
        ("[node]\nquiet_period_s = 0", "node.quiet_period_s is 0: it must be more than 0."),
        ('[node]\nport = "many"', "node.port is 'many': it must be a whole number."),
        ("[ledger]\nworkers = 1.5", "ledger.workers is 1.5: it must be a whole number."),
        ('[scanner]\naccept_synthetic_ct = "perhaps"', "scanner.accept_synthetic_ct is 'perhaps': it must be true or"),
        ("[node]\nae_title = 7", "node.ae_title is 7: it must be text in quotes."),
        (
            '[node]\nallowed_calling_ae = ["PACS"]',
            "node.allowed_calling_ae is no longer a key: write a [[peers]] table for each caller, with its ae_title",
        ),
        (PEER.replace("ct", "a b"), "peers[1].name: a peer's name has 1 to 32 letters, digits, dots, hyphens and"),
        (f"{PEER}prot = 1", "unknown key peers[1].prot: did you mean port?"),
        (f'{PEER}addresses = "10.0.0.5"', "peers[1].addresses is '10.0.0.5': it must be a list in brackets."),
        (f'{PEER}addresses = ["10.1.0.5/16"]', "peers[1].addresses[1]: '10.1.0.5/16' is no address: give an IP"),
        (f'{PEER}addresses = ["10.1.0.300"]', "peers[1].addresses[1]: '10.1.0.300' is no address: give an IP"),
        (f'{PEER}roles = ["sends_ct"]', "peers[1].roles[1] is 'sends_ct': it must be 'send_ct', 'take_pet', 'query'"),
        ('[[peers]]\nname = "ct"\nae_title = "CT"', "peers[1]: the peer 'ct' needs a host that we call, or addresses"),
        (f'{PEER}certificate_name = "ct"', "peers[1]: the peer 'ct' has a certificate_name: set tls = true, or leave"),
        (
            f'{TO}peer = "ct"\nurl = "https://x"',
            "destinations[1]: the destination 'archive' needs either a peer or a url.",
        ),
        (f'{TO}peer = "nobody"', "the destination 'archive' names the peer 'nobody', which [[peers]] does not have."),
        (
            f'{TO}peer = "ct"\n{PEER}roles = ["query"]',
            "the destination 'archive' needs the role 'take_pet' of the peer",
        ),
        (
            f'{TO}peer = "ct"\n{PEER}roles = ["take_pet"]',
            "the destination 'archive' needs the role 'query' of the peer",
        ),
        (f'{TO}url = "https://x"\nconfirm = "commitment"', "has a url, which is not asked for storage commitment: set"),
        (f'{TO}url = "https://x"\nrequired = false', "no destination is required: the twin record lists what a"),
        (TO.replace("archive", "twin"), "no destination may have the name 'twin': that is the twin record."),
        (
            f'{TO}url = "https://x"\n{TO}url = "https://y"',
            "two destinations are named 'archive', [pacs] among them: give",
        ),
        (PEER + PEER, "two [[peers]] are named 'ct': give each its own name."),
        (f"[pacs]\nport = 4\n{PEER.replace('ct', 'pacs', 1)}", "[pacs] is short for the peer 'pacs', which [[peers]]"),
        (
            f"{CALLER}tls = true",
            "peers[1]: the peer 'ct' has tls = true and no host: give its certificate_name.",
        ),
        (
            f'{PEER}tls = true\n[tls]\ncertificate = "c"\nkey = "k"\nca_file = "a"\nlisten_tls = false',
            "the peer 'ct' calls us by TLS alone: set tls.listen_tls = true, or take 'send_ct' and 'commit' from its",
        ),
        (
            f'{CALLER}[[destinations]]\nname = "x"\npeer = "ct"',
            "the destination 'x' needs a host of the peer 'ct'",
        ),
        (f"{PEER}tls = true", "the peer 'ct' has tls = true: name our certificate, key and ca_file in [tls]."),
        ('[tls]\nkey = "k"', "tls: TLS with mutual authentication also needs tls.certificate and tls.ca_file."),
        ('[tls]\nminimum_version = "1.1"', "tls.minimum_version is '1.1': it must be '1.2' or '1.3'."),
        ("[twin]\nissuer_systems = 3", "twin.issuer_systems is 3: it must be a table."),
        ("[twin]\ntoken_file = 3", "twin.token_file is 3: it must be a path in quotes."),
        ("node = 3", "node is 3: it must be a section with its keys."),
        ('[log]\nlevel = "LOUD"', "log.level is 'LOUD': it must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'."),
        ('[twin]\nurl = "https://x"', "twin: twin.url needs twin.patient_identifier_system, the identifier system by"),
        (
            '[twin]\nurl = "https://x"\npatient_identifier_system = "urn:twin-scanner:patient-id"',
            "without it every patient gets a second Patient.",
        ),
        ('[twin]\nunknown_patient = "ask"', "twin.unknown_patient"),
        ('[twin]\nurl = "ftp://x"', "twin.url: a base URL begins with http:// or https://."),
        (
            '[node]\nname = "a b"',
            "node.name: a node's name has 1 to 64 letters, digits, dots, hyphens and underscores.",
        ),
        ('[districts]\ndevice = "gpu"', "districts.device: a device is cpu, cuda, cuda:1 or mps."),
        ('[districts]\nmoose_sha256 = "abc"', "districts.moose_sha256: a SHA-256 has 64 digits 0-9 and a-f."),
        ('[twin]\nzone = "Mars/Base"', "twin.zone: there is no such time zone: give an IANA name such as Europe/Rome."),
        ('[districts]\nsegmenter = "labelmap"', "districts: the segmenter 'labelmap' needs districts.labelmap"),
    ],
)
def test_a_fault_is_a_sentence_in_plain_words(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text + "\n")
    with pytest.raises(Misconfigured) as caught:
        load_settings(file)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"The configuration {file} has a fault:"
    assert len(lines) == 2 and sentence in lines[1], lines
    assert lines[1][-1] in ".?"
    assert "Input should" not in lines[1] and "validation" not in lines[1]


def test_a_fault_of_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWIN_SCANNER__NODE__PORT", "many")
    monkeypatch.setenv("TWIN_SCANNER__NODE__PROT", "1")
    monkeypatch.setenv("TWIN_SCANNER__NOED__PORT", "1")
    with pytest.raises(Misconfigured) as caught:
        load_settings(None)
    text = str(caught.value)
    assert text.startswith("The configuration has 3 faults:\n")
    assert "TWIN_SCANNER__NODE__PORT is 'many': it must be a whole number." in text
    assert "unknown key TWIN_SCANNER__NODE__PROT: did you mean TWIN_SCANNER__NODE__PORT?" in text
    assert "unknown section TWIN_SCANNER__NOED__PORT: did you mean TWIN_SCANNER__NODE?" in text


def test_what_is_wrong_with_an_address_does_not_show_what_may_be_a_password(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[twin]\nurl = "htps://me:s3cret@server"\n[ledger]\nurl = 7\n')
    with pytest.raises(Misconfigured) as caught:
        load_settings(file)
    assert "s3cret" not in str(caught.value)


def test_the_configuration_of_the_machine_is_taken_where_none_is_given(tmp_path: Path) -> None:
    given, machine = tmp_path / "given.toml", tmp_path / "machine.toml"
    assert configuration_file(given, machine) == given
    assert configuration_file(None, machine) is None
    machine.write_text("")
    assert configuration_file(None, machine) == machine
    assert configuration_file(given, machine) == given
    assert Path("/etc/twin-scanner/twin-scanner.toml") == MACHINE_CONFIGURATION


@pytest.mark.parametrize("confirm, queried", [("query", True), ("commitment", True), ("status", False)])
def test_a_pacs_that_proves_nothing_but_its_status_is_not_asked_for_studies(confirm: str, queried: bool) -> None:
    (pacs,) = Settings.model_validate({"pacs": {"confirm": confirm}}).known_peers
    assert (Role.QUERY in pacs.roles) is queried


def test_pacs_is_short_for_a_destination_beside_others_and_its_default_counts_alone() -> None:
    only = Settings.model_validate({"pacs": {"port": 11}}).known_destinations
    assert [(one.name, one.peer, one.confirm, one.required) for one in only] == [("pacs", "pacs", "query", True)]
    url = {"name": "cloud", "url": "https://pacs.example/dicom-web"}
    assert [one.name for one in Settings.model_validate({"destinations": [url]}).known_destinations] == ["cloud"]
    both = Settings.model_validate({"destinations": [url], "pacs": {"port": 11, "confirm": "status"}})
    assert [(one.name, one.confirm) for one in both.known_destinations] == [("cloud", "query"), ("pacs", "status")]


FILES = '\nca_file = "ca"\ncertificate = "c"\nkey = "k"'


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ('kind = "dask"', "executor.scheduler is tls://HOST:PORT"),
        ('kind = "dask"\nscheduler = "10.0.0.5:8786"', "executor.scheduler is tls://HOST:PORT"),
        ('kind = "dask"\nscheduler = "tcp://10.0.0.5:8786"' + FILES, "without TLS, and Dask runs whatever it receives"),
        ('kind = "dask"\nscheduler = "tcp://dask.hospital:8786"', "without TLS, and Dask runs whatever it receives"),
        (
            'kind = "dask"\nscheduler = "tls://dask.hospital:8786"\nkey = "k"',
            "executor.ca_file and executor.certificate",
        ),
        ("renders = 2", 'executor.renders is for executor.kind = "dask"'),
    ],
)
def test_a_scheduler_that_anybody_could_speak_for_is_a_fault(section: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(f"[executor]\n{section}\n")
    with pytest.raises(Misconfigured, match=re.escape(fault)):
        load_settings(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    "scheduler", ["tls://dask.hospital:8786", "tcp://127.0.0.1:8786", "tcp://[::1]:8786", "tcp://localhost:8786"]
)
def test_a_scheduler_on_loopback_or_by_tls_is_taken(scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(f'[executor]\nkind = "dask"\nscheduler = "{scheduler}"{FILES}\n')
    assert load_settings(tmp_path / "good.toml").executor.scheduler == scheduler
