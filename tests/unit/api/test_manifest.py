"""A definition is read, written, and refused with a place and a sentence."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from api import complaints
from api.access import TokenRequest
from api.errors import ExitCode, InvalidSpec
from api.manifest import MAX_BYTES, InvalidManifest, dump, load
from api.spec import BuildSpec, ComponentSpec, RouteMode, RouteSpec, ServiceSpec, SnapshotSpec
from tests.unit.api.definitions import full, services

HELLO = """\
# A comment with "quotes and [brackets]
name = "hello"

[build.images]
"odd.name" = "Dockerfile"

[[components]]
name = "web"
image = "hello:v1"
cmd = [
    'say', # one
    "hi \\" there",
]
env = ['''A=1
[[components]]
name = "no"
''']
  [[components.routes]]
  port = 8443
  mode = "l7"
  [[components.routes]]
  name = "rest"
  port = 9443

[[components]]
name = "db"
routes = [ { port = 1 },
  { name = "two", port = 2 } ]
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(InvalidManifest) as caught:
        load(text, "f")
    return str(caught.value).splitlines()


@given(services)
def test_what_was_dumped_loads_as_the_same(spec: ServiceSpec) -> None:
    assert load(dump(spec), "dumped").spec == spec


@given(services)
def test_a_dump_holds_only_what_was_set(spec: ServiceSpec) -> None:
    written = load(dump(spec), "dumped").spec
    assert written.model_fields_set == {
        name for name, field in ServiceSpec.model_fields.items() if getattr(spec, name) != field.default
    }


def test_a_definition_is_dumped_in_the_order_of_its_fields() -> None:
    assert (
        dump(full())
        == """\
name = "full"
node = "rift"
active = false
version = "v1.0.0"
path = "src/full"
tier = "core"
depends_on = ["mcias"]

[build.images]
full = "Dockerfile"

[snapshot]
method = "cp"
exclude = ["cache"]

[[components]]
name = "web"
active = false
image = "reg:5000/full:v1.0.0"
version = "v1.0.1"
network = "mcpnet"
user = "0:0"
restart = "on-failure"
pull = "newer"
depends_on = ["db"]
ports = ["127.0.0.1:18443:8443"]
volumes = ["/srv/full:/srv/full"]
cmd = ["server"]
entrypoint = ["/bin/web"]
working_dir = "/srv"
env = ["KEY=value"]
secret_env = ["KEY"]
secrets = ["key:/etc/key"]
extra_hosts = ["db.example:10.0.0.5"]
memory = "512M"
cpus = 0.5
pids = 100
read_only = true
tmpfs = ["/tmp:size=64M"]
cap_drop = ["ALL"]
cap_add = ["NET_BIND_SERVICE"]
privileged = true
host_namespaces = ["pid"]
stop_signal = "SIGINT"
stop_timeout = "30s"

[components.labels]
team = "infra"

[components.health]
http = "/healthz"
status = 204
tls = true
route = "rest"
interval = "5s"
timeout = "1s"
retries = 5
start_period = "1m"
liveness = false

[components.update]
strategy = "blue-green"
deadline = "90s"
drain = "2m"

[[components.routes]]
name = "rest"
port = 8443
mode = "l7"
hostname = "full.example"
public = true

[[components]]
name = "db"
image = "db:1"
ports = ["5432"]

[components.health]
tcp = true
port = 5432

[[components]]
name = "task"
image = "task:1"

[components.health]
exec = ["true"]
"""
    )


def test_a_long_list_is_dumped_with_a_line_for_each_item() -> None:
    spec = load('name = "a"\n[[components]]\nname = "a"\nimage = "a:1"', "f").spec
    component = spec.components[0].model_copy(update={"cmd": ("x" * 60, "y" * 60)})
    text = dump(spec.model_copy(update={"components": (component,)}))
    assert f'cmd = [\n    "{"x" * 60}",\n    "{"y" * 60}",\n]\n' in text


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("", 1),
        ("name", 2),
        ("build", 4),
        ("build.images", 4),
        ("components[0]", 7),
        ("components[0].image", 9),
        ("components[0].cmd", 10),
        ("components[0].cmd[1]", 12),
        ("components[0].env[0]", 14),
        ("components[0].user", 7),
        ("components[0].routes[0].port", 19),
        ("components[0].routes[1]", 21),
        ("components[0].routes[1].port", 23),
        ("components[0].routes[1].mode", 21),
        ("components[1].name", 26),
        ("components[1].routes[0].port", 27),
        ("components[1].routes[1].port", 28),
        ("components[7].name", 7),
        ("nothing", 1),
    ],
)
def test_a_field_is_found_on_its_line_or_on_that_of_what_is_around_it(field: str, line: int) -> None:
    assert load(HELLO, "hello.toml").locate(field) == line


def test_a_quoted_key_is_found() -> None:
    assert load(HELLO, "f").lines.line_of(("build", "images", "odd.name")) == 5


def test_a_wrong_key_is_named_where_it_is_written() -> None:
    (problem,) = problems(
        'name = "x"\n[build.images]\nx = "Dockerfile"\n"r/web:v1" = "x"\n[[components]]\nname = "web"'
    )
    wanted = 'must be an image\'s name without registry and tag, such as "metacrypt-web"'
    assert problem == f'f:4: build.images.r/web:v1: {wanted}, not "r/web:v1"'


def test_what_the_agent_finds_wrong_gets_its_place_in_the_file() -> None:
    error = load(HELLO, "hello.toml").invalid(InvalidSpec("components[1].image", "has no tag"))
    assert str(error) == "hello.toml:25: components[1].image: has no tag"
    assert error.exit_code is ExitCode.REFUSED


@pytest.mark.parametrize("text", [HELLO, HELLO.replace("\n", "\r\n"), "\ufeff" + HELLO])
def test_line_endings_and_byte_order_marks_of_other_systems_are_taken(text: str) -> None:
    manifest = load(text.encode(), "f")
    assert manifest.locate("components[1].name") == 26
    assert manifest.spec.components[0].routes[0].mode is RouteMode.L7
    assert manifest.spec.components[0].cmd == ("say", 'hi " there')


def test_everything_that_is_wrong_is_said_at_once_from_top_to_bottom() -> None:
    assert problems(
        """nam = "hello"
active = "true"
tier = "Core"
path = 3.5
[build]
images = 2024-01-01
dockerfile = "x"
[[components]]
name = "web"
image = " "
env = ["PASSWORD hunter2", "A=1"]
ports = [
  "80:80:80:80:80",
  8080,
]
cmd = "serve"
hostname = "x"
[[components.routes]]
port = "8443"
mode = "L7"
[[components.routes]]
prot = 70000
[[components.routes]]
port = 70000
public = 1
[[components]]
name = "Web"
restart = "allways"
volumes = ["../x:/y"]
"""
    ) == [
        'f:1: name: is missing: a service needs it, for example name = "web"',
        'f:1: nam: is not a field of a service; did you mean "name"?',
        'f:2: active: must be true or false, not "true": write true without quotes',
        'f:3: tier: must be "core" or "worker", not "Core"; did you mean "core"?',
        "f:4: path: must be text in quotes, not the number 3.5: put it in quotes",
        "f:6: build.images: must be a table, not the date or time 2024-01-01",
        "f:7: build.dockerfile: is not a field of [build]; it knows images",
        'f:10: components[0].image: " " is not an image reference such as registry:5000/name:v1.0.0 or name@sha256:...',
        'f:11: components[0].env[0]: the entry is not of the form "KEY=value"',
        'f:13: components[0].ports[0]: "80:80:80:80:80" is not of the form "[address:]host_port:container_port[/udp]"',
        "f:14: components[0].ports[1]: must be text in quotes, not the number 8080: put it in quotes",
        'f:16: components[0].cmd: must be a list in [ ], not "serve": put it in [ ]',
        "f:17: components[0].hostname: is not a field of a component: it belongs in [[components.routes]]",
        'f:19: components[0].routes[0].port: must be a whole number, not "8443": write 8443 without quotes',
        'f:20: components[0].routes[0].mode: must be "l4" or "l7", not "L7"; did you mean "l7"?',
        "f:21: components[0].routes[1].port: is missing: a route needs it, for example port = 8443",
        'f:22: components[0].routes[1].prot: is not a field of a route; did you mean "port"?',
        "f:24: components[0].routes[2].port: must be at most 65535, not the number 70000",
        "f:25: components[0].routes[2].public: must be true or false, not the number 1",
        'f:27: components[1].name: must be lower case letters, digits and inner dashes, at most 63, not "Web"',
        "f:28: and 2 more problems",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'f:1: name: is missing: a service needs it, for example name = "web"'),
        (
            "port = true",
            "f:1: port: is not a field of a service: it belongs in [components.health] or in [[components.routes]]",
        ),
        ('name = "a"\ncomponents = []', "f:2: components: needs at least one [[components]] table, not an empty list"),
        (
            'name = "a"\n[components]\nname = "b"',
            "f:2: components: must be written as [[components]] tables, not a table",
        ),
        ('name = "a"\ncomponents = ["a"]', 'f:2: components[0]: must be a table, not "a"'),
        (
            'name = "a"\n[[components]]\nname = "a"\n[components.routes]\nport = 1',
            "f:4: components[0].routes: must be written as [[components.routes]] tables, not a table",
        ),
        (
            'name = "a"\n[[components]]\nname = "a"\n[[components]]\nname = "a"',
            'f:1: there are 2 entries for component "a": give each a name of its own',
        ),
        (
            'name = "a"\n[[components]]\nname = "a"\n[[components.routes]]\nport = 1\n[[components.routes]]\nport = 2',
            "f:2: components[0]: component a has several routes without a name: name all but one",
        ),
        (
            'name = "a"\n[[components]]\nname = "a"\n[[components.routes]]\nport = true',
            "f:5: components[0].routes[0].port: must be a whole number, not true",
        ),
        (
            'name = "a"\nversion = "a b"\n[[components]]\nname = "a"',
            'f:2: version: must be an image tag such as v1.0.0 (letters, digits, "_.-", at most 128), not "a b"',
        ),
        ("a = = 3", "f:1: this is not TOML: Invalid value"),
        ('name = "a"\nname = "b"', "f:2: this is not TOML: Cannot overwrite a value"),
        ('a = 1\n\nx = """abc', "f:3: this is not TOML: Unterminated string"),
        (b'a = "\xff"', "f:1: byte 0xff is not UTF-8: save the file as UTF-8"),
        ("a = 1\n\0", "f:2: the file contains a NUL character: it is not a text file"),
        (b"#" * (MAX_BYTES + 1), "f:1: the file is larger than 1024 KiB, which no definition needs"),
        ("x = " + "5" * 5000, "f:1: has a key or number of 5000 characters; 256 are allowed"),
        ('\n"' + "k" * 300 + '" = 1', "f:2: has a key of 302 characters; 256 are allowed"),
        ("x" + ".x" * 20_000 + " = 1", "f:1: has a dotted key of more than 16 parts"),
        ("[x" + " . x" * 20_000 + "]", "f:1: has a dotted key of more than 16 parts"),
        ("x = " + "[" * 5000, "f:1: nests lists or tables more than 16 deep"),
        ("x = " + "{a = " * 5000, "f:1: nests lists or tables more than 16 deep"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, problem: str) -> None:
    assert problem in problems(text)


def test_a_value_or_key_of_any_length_is_shown_in_a_line() -> None:
    for text in ('tier = "' + "x" * 500_000 + '"', '"' + "k" * 250 + '" = 1', "tier = " + "9" * 200):
        assert all(len(line) < 250 for line in problems(text))


def test_a_secret_in_a_wrong_definition_is_not_shown() -> None:
    head = 'name = "a"\n[[components]]\nname = "a"\n'
    for line in (
        'env = ["password: hunter2"]',
        'env = ["DB_PASSWORD=hunter2\\u0000"]',
        'env = "DB_PASSWORD=hunter2"',
        'image = "https://me:hunter2@x y"',
    ):
        assert "hunter2" not in "".join(problems(head + line))


@given(st.text(st.sampled_from("[]{}=.,#'\"\\\n ab1é\x0c"), max_size=60) | st.text(max_size=40))
def test_no_text_at_all_raises_anything_but_our_own_error(text: str) -> None:
    with pytest.raises(InvalidManifest):
        load(text, "f")


@pytest.mark.parametrize(
    "text",
    ['"""\\' * 200_000, "'''\n" * 200_000, '"\\' * 400_000, "[a]\n" * 200_000, "a=[[[[" * 100_000, "=[\n" * 300_000],
    ids=lambda text: repr(text[:6]),
)
def test_no_text_within_the_limits_takes_long(text: str) -> None:
    before = time.process_time()
    with pytest.raises(InvalidManifest):
        load(text, "f")
    assert time.process_time() - before < 10


WRONG: list[object] = [
    None,
    1,
    1.5,
    "",
    " ",
    "A B",
    True,
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    [{"a": 1}],
    "x" * 300,
    -1,
    10**9,
]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
def test_no_sentence_is_left_to_pydantic(value: object) -> None:
    for field in ServiceSpec.model_fields:
        document: dict[str, Any] = {"name": "a", "components": [{"name": "a"}], field: value}
        assert_own_words(document)
    for field in ComponentSpec.model_fields:
        assert_own_words({"name": "a", "components": [{"name": "a", field: value}]})
    for field in RouteSpec.model_fields:
        assert_own_words({"name": "a", "components": [{"name": "a", "routes": [{"port": 1, field: value}]}]})
    for table, model in (("build", BuildSpec), ("snapshot", SnapshotSpec)):
        for field in model.model_fields:
            assert_own_words({"name": "a", "components": [{"name": "a"}], table: {field: value}})


def assert_own_words(document: dict[str, Any]) -> None:
    try:
        ServiceSpec.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        for complaint in complaints.complaints(error, document):
            assert "should" not in complaint.message
            assert "Input" not in complaint.message
            assert "something else" not in complaint.message


def test_every_table_has_a_name_for_people() -> None:
    def models(kind: type[BaseModel]) -> set[type[BaseModel]]:
        inner = {found for field in kind.model_fields.values() for found in complaints._models_in(field.annotation)}
        return {kind, *(model for one in inner for model in models(one))}

    assert set(complaints.DEFINITION) == models(ServiceSpec)


def test_every_pattern_has_a_sentence() -> None:
    def patterns(schema: object) -> set[str]:
        if isinstance(schema, dict):
            own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
            own |= set(schema.get("patternProperties", ()))
            return own.union(*(patterns(value) for value in schema.values()))
        return set().union(*(patterns(value) for value in schema)) if isinstance(schema, list) else set()

    known = [patterns(model.model_json_schema()) for model in (ServiceSpec, TokenRequest)]
    assert set().union(*known) == set(complaints._PATTERNS)
