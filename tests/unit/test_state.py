# SPDX-License-Identifier: Apache-2.0
"""What a state promises, each promise of both states.

The groups are those of the original's state tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from state_samples import SPEC, ctr, identifier, ids, joins, paths_of, pod

from libpod import errors
from libpod.errors import (
    ContainerExists,
    ContainerRemoved,
    DBClosed,
    EmptyID,
    InvalidArgument,
    NamespaceMismatch,
    NoSuchContainer,
    NoSuchPod,
    PodExists,
    PodRemoved,
)
from libpod.settings import StateType
from libpod.state import State, open_state
from libpod.state.bolt import BoltState
from libpod.state.errors import BadRecord
from libpod.state.handles import ContainerRecord, PodRecord
from libpod.state.memory import MemoryState
from libpod.state.records import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
)


@pytest.fixture(params=["memory", "bolt"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    made: State
    if request.param == "memory":
        made = MemoryState()
    else:
        made = BoltState(str(tmp_path / "bolt_state.db"), paths_of(tmp_path))
    yield made
    made.close()


def same(one: ContainerRecord | PodRecord, other: ContainerRecord | PodRecord) -> bool:
    return (
        (one.id, one.name, one.namespace, one.valid)
        == (other.id, other.name, other.namespace, other.valid)
        and one.config == other.config
        and one.state == other.state
    )


# --- what containers and pods have in common ---------------------------------------


class Noun(NamedTuple):
    word: str
    make: Callable[..., Any]
    missing: type[Exception]
    exists: type[Exception]
    removed: type[Exception]

    def call(self, verb: str, state: State, *arguments: Any) -> Any:
        return getattr(state, verb.replace("X", self.word))(*arguments)

    def add(self, state: State, record: Any) -> None:
        self.call("add_X", state, record)

    def all(self, state: State) -> list[Any]:
        found: list[Any] = self.call("all_Xs", state)
        return found


CONTAINER = Noun("container", ctr, NoSuchContainer, ContainerExists, ContainerRemoved)
POD = Noun("pod", pod, NoSuchPod, PodExists, PodRemoved)
OTHER = {CONTAINER: POD, POD: CONTAINER}


@pytest.fixture(params=[CONTAINER, POD], ids=["container", "pod"])
def noun(request: pytest.FixtureRequest) -> Noun:
    found: Noun = request.param
    return found


@pytest.fixture
def other(noun: Noun) -> Noun:
    return OTHER[noun]


class TestAddAndGet:
    def test_what_was_added_comes_back_equal(self, state: State, noun: Noun) -> None:
        one, two = noun.make(1), noun.make(2)
        noun.add(state, one)
        assert same(noun.call("X", state, one.id), one)
        noun.add(state, two)
        assert same(noun.call("X", state, two.id), two)
        assert same(noun.call("X", state, one.id), one)

    def test_get_finds_nothing(self, state: State, noun: Noun, other: Noun) -> None:
        for wanted, error in (("", EmptyID), (identifier(1), noun.missing)):
            with pytest.raises(error):
                noun.call("X", state, wanted)
        noun.add(state, noun.make(1))
        other.add(state, other.make(2))
        for wanted in ("1", "test1", identifier(2), identifier(3)):
            with pytest.raises(noun.missing):
                noun.call("X", state, wanted)

    def test_an_invalid_one_is_refused(self, state: State, noun: Noun) -> None:
        record = noun.make(1)
        record.valid = False
        with pytest.raises(noun.removed):
            noun.add(state, record)
        assert noun.all(state) == []

    @pytest.mark.parametrize(
        "members", [{"name": "another"}, {"id": identifier(2)}], ids=["same ID", "same name"]
    )
    @pytest.mark.parametrize("taken_by_other_kind", [False, True])
    def test_ids_and_names_are_unique(
        self, state: State, noun: Noun, other: Noun, members: Any, taken_by_other_kind: bool
    ) -> None:
        first = other if taken_by_other_kind else noun
        first.add(state, first.make(1))
        with pytest.raises(noun.exists):
            noun.add(state, noun.make(1, **members))
        assert len(noun.all(state)) + len(other.all(state)) == 1
        noun.add(state, noun.make(3))  # nothing of the refused one is in the way

    @pytest.mark.parametrize("ours", ["", "a", "b"])
    @pytest.mark.parametrize("members", [{"name": "another"}, {"id": identifier(2)}])
    def test_unique_across_all_namespaces(
        self, state: State, noun: Noun, ours: str, members: Any
    ) -> None:
        noun.add(state, noun.make(1, namespace="z"))
        state.set_namespace(ours)
        with pytest.raises(noun.exists):
            noun.add(state, noun.make(1, **{"namespace": ours, **members}))

    @pytest.mark.parametrize(
        ("theirs", "ours", "error"),
        [
            ("a", "a", None),
            ("a", "", None),
            ("a", "b", NamespaceMismatch),
            ("", "b", NamespaceMismatch),
        ],
    )
    def test_namespaces_of_get_and_add(
        self, state: State, noun: Noun, theirs: str, ours: str, error: type[Exception] | None
    ) -> None:
        noun.add(state, noun.make(1, namespace=theirs))
        state.set_namespace(ours)
        assert state.namespace == ours
        if error is None:
            assert noun.call("X", state, identifier(1)).namespace == theirs
            noun.add(state, noun.make(2, namespace=theirs))
        else:
            with pytest.raises(error):
                noun.call("X", state, identifier(1))
            with pytest.raises(error):
                noun.add(state, noun.make(2, namespace=theirs))
        state.set_namespace("")
        assert len(noun.all(state)) == (2 if error is None else 1)


class Object(NamedTuple):
    """What a lookup finds itself in: an object of the sought kind, or of the other."""

    number: str
    sought: bool = True
    namespace: str = ""
    name: str = ""


MISSING, EXISTS = "missing", "exists"

LOOKUPS: list[tuple[str, list[Object], str, str, Any]] = [
    # what, what there is, our namespace, what is wanted, number of what is found or why not
    ("nothing is asked", [], "", "", EmptyID),
    ("nothing is there", [], "", "test1", MISSING),
    ("full ID", [Object("1"), Object("2")], "", identifier(1), "1"),
    ("beginning of an ID", [Object("1"), Object("2")], "", "11", "1"),
    ("beginning of two", [Object("12"), Object("13")], "", "1", EXISTS),
    ("enough of the beginning", [Object("12"), Object("13")], "", "13", "13"),
    ("name", [Object("1"), Object("2")], "", "test2", "2"),
    ("beginning of a name", [Object("1")], "", "test", MISSING),
    ("middle of an ID", [Object("12")], "", "22", MISSING),
    ("name of the other kind", [Object("1", sought=False)], "", "test1", MISSING),
    ("ID of the other kind", [Object("1", sought=False)], "", identifier(1), MISSING),
    ("beginning of another kind's ID", [Object("1", sought=False)], "", "1", MISSING),
    (
        "beginning shared with the other kind",
        [Object("12"), Object("13", sought=False)],
        "",
        "1",
        EXISTS,
    ),
    ("name that begins another's ID", [Object("1", name="22"), Object("2")], "", "22", EXISTS),
    ("name that begins its own ID", [Object("2", name="22"), Object("1")], "", "22", "2"),
    (
        "name that begins an ID of the other kind",
        [Object("1", name="22"), Object("2", sought=False)],
        "",
        "22",
        EXISTS,
    ),
    (
        "full ID that is another's name",
        [Object("1", name=identifier(2)), Object("2")],
        "",
        identifier(2),
        "2",
    ),
    ("same namespace", [Object("1", namespace="a")], "a", "1", "1"),
    ("name in the same namespace", [Object("1", namespace="a")], "a", "test1", "1"),
    ("other namespace", [Object("1", namespace="b")], "a", "1", MISSING),
    ("name in another namespace", [Object("1", namespace="b")], "a", "test1", MISSING),
    (
        "full ID in another namespace",
        [Object("1", namespace="b")],
        "a",
        identifier(1),
        NamespaceMismatch,
    ),
    ("no namespace, we in one", [Object("1")], "a", "1", MISSING),
    ("in one, we in none", [Object("1", namespace="a")], "", "1", "1"),
    (
        "beginning of one inside and one outside",
        [Object("12", namespace="a"), Object("13", namespace="b")],
        "a",
        "1",
        "12",
    ),
    (
        "beginning of two, seen from no namespace",
        [Object("12", namespace="a"), Object("13", namespace="b")],
        "",
        "1",
        EXISTS,
    ),
    (
        "beginning shared with the other kind elsewhere",
        [Object("12", namespace="a"), Object("13", sought=False, namespace="b")],
        "a",
        "1",
        "12",
    ),
]


@pytest.mark.parametrize(
    ("there", "ours", "wanted", "outcome"),
    [row[1:] for row in LOOKUPS],
    ids=[r[0] for r in LOOKUPS],
)
def test_lookup(
    state: State, noun: Noun, other: Noun, there: list[Object], ours: str, wanted: str, outcome: Any
) -> None:
    for thing in there:
        kind = noun if thing.sought else other
        name = thing.name or f"test{thing.number}"
        kind.add(state, kind.make(thing.number, namespace=thing.namespace, name=name))
    state.set_namespace(ours)
    error = {MISSING: noun.missing, EXISTS: noun.exists}.get(outcome, outcome)
    if isinstance(error, type):
        with pytest.raises(error):
            noun.call("lookup_X", state, wanted)
    else:
        assert noun.call("lookup_X", state, wanted).id == identifier(outcome)


@pytest.mark.parametrize("wanted", ["\udcff", "\0", "1" * 70_000, "../1", "é"])
def test_lookup_of_anything(state: State, noun: Noun, wanted: str) -> None:
    noun.add(state, noun.make(1))
    for verb in ("lookup_X", "X"):
        with pytest.raises(noun.missing):
            noun.call(verb, state, wanted)
    assert not noun.call("has_X", state, wanted)


def test_lookup_of_what_cannot_be_written(state: State, noun: Noun) -> None:
    with pytest.raises(InvalidArgument):
        noun.call("lookup_X", state, "\ud800")


class TestHas:
    def test_by_full_id_only(self, state: State, noun: Noun, other: Noun) -> None:
        with pytest.raises(EmptyID):
            noun.call("has_X", state, "")
        assert not noun.call("has_X", state, identifier(1))
        noun.add(state, noun.make(1))
        other.add(state, other.make(2))
        answers = {
            w: noun.call("has_X", state, w) for w in (identifier(1), "1", "test1", identifier(2))
        }
        assert [wanted for wanted, answer in answers.items() if answer] == [identifier(1)]

    @pytest.mark.parametrize(("ours", "seen"), [("a", True), ("b", False), ("", True)])
    def test_namespaces(self, state: State, noun: Noun, ours: str, seen: bool) -> None:
        noun.add(state, noun.make(1, namespace="a"))
        state.set_namespace(ours)
        assert noun.call("has_X", state, identifier(1)) is seen


class TestAll:
    def test_grows_in_the_order_of_ids(self, state: State, noun: Noun, other: Noun) -> None:
        other.add(state, other.make(9))
        assert noun.all(state) == []
        for number, expected in ((2, ["2"]), (1, ["1", "2"]), (3, ["1", "2", "3"])):
            noun.add(state, noun.make(number))
            assert ids(noun.all(state)) == expected
        assert same(noun.all(state)[0], noun.call("X", state, identifier(1)))

    def test_namespaces_hide(self, state: State, noun: Noun) -> None:
        noun.add(state, noun.make(1, namespace="a"))
        noun.add(state, noun.make(2, namespace="b"))
        noun.add(state, noun.make(3))
        for ours, expected in (("a", ["1"]), ("b", ["2"]), ("c", []), ("", ["1", "2", "3"])):
            state.set_namespace(ours)
            assert ids(noun.all(state)) == expected


class TestSaveAndUpdate:
    @pytest.mark.parametrize("namespace", ["", "a"])
    def test_a_second_handle_learns_what_the_first_saved(
        self, state: State, namespace: str
    ) -> None:
        state.add_container(ctr(1, namespace=namespace))
        state.set_namespace(namespace)
        first, second = state.container(identifier(1)), state.container(identifier(1))
        before = second.state
        first.state.status = ContainerStatus.STOPPED
        first.state.exit_code = 7
        first.netns = "/run/netns/one"
        state.save_container(first)
        assert (second.state.status, second.netns) == (ContainerStatus.RUNNING, "")
        state.update_container(second)
        assert second.state is not before
        assert same(first, second)
        assert second.netns == "/run/netns/one"

    @pytest.mark.parametrize("namespace", ["", "a"])
    def test_pods(self, state: State, namespace: str) -> None:
        state.add_pod(pod(1, namespace=namespace))
        state.set_namespace(namespace)
        first, second = state.pod(identifier(1)), state.pod(identifier(1))
        first.state.cgroup_path = "/elsewhere"
        first.state.infra_container_id = identifier(2)
        state.save_pod(first)
        state.update_pod(second)
        assert same(first, second)
        assert second.state.cgroup_path == "/elsewhere"

    def test_netns_comes_and_goes(self, state: State) -> None:
        state.add_container(ctr(1))
        record = state.container(identifier(1))
        for netns in ("/run/netns/a", "/run/netns/b", ""):
            record.netns = netns
            state.save_container(record)
            assert state.container(identifier(1)).netns == netns

    def test_a_state_can_be_replaced(self, state: State) -> None:
        record = ctr(1)
        state.add_container(record)
        record.state = ContainerState(run_dir="/other")
        state.save_container(record)
        assert state.container(identifier(1)).state == ContainerState(run_dir="/other")

    def test_what_is_not_saved_is_not_there(self, state: State) -> None:
        record = ctr(1)
        state.add_container(record)
        record.state.pid = 4321
        assert state.container(identifier(1)).state.pid == 1234
        state.update_container(record)
        assert record.state.pid == 1234


HANDLE_VERBS: list[tuple[Noun, str, Callable[[State, Any], Any]]] = [
    (CONTAINER, "update", lambda state, record: state.update_container(record)),
    (CONTAINER, "save", lambda state, record: state.save_container(record)),
    (CONTAINER, "in use", lambda state, record: state.container_in_use(record)),
    (CONTAINER, "rename", lambda state, record: state.rename_container(record, "new")),
    (POD, "update", lambda state, record: state.update_pod(record)),
    (POD, "save", lambda state, record: state.save_pod(record)),
    (POD, "remove", lambda state, record: state.remove_pod(record)),
    (POD, "has container", lambda state, record: state.pod_has_container(record, identifier(9))),
    (POD, "containers by ID", lambda state, record: state.pod_containers_by_id(record)),
    (POD, "containers", lambda state, record: state.pod_containers(record)),
    (POD, "remove containers", lambda state, record: state.remove_pod_containers(record)),
    (
        POD,
        "add container",
        lambda state, record: state.add_container_to_pod(
            record, ctr(9, pod=1, namespace=record.namespace)
        ),
    ),
    (
        POD,
        "remove container",
        lambda state, record: state.remove_container_from_pod(record, ctr(9, pod=1)),
    ),
]


@pytest.mark.parametrize(
    ("of", "verb"),
    [(row[0], row[2]) for row in HANDLE_VERBS],
    ids=[f"{r[0].word} {r[1]}" for r in HANDLE_VERBS],
)
class TestHandles:
    def test_one_that_is_not_valid(self, state: State, of: Noun, verb: Any) -> None:
        record = of.make(1)
        of.add(state, record)
        record.valid = False
        with pytest.raises(of.removed):
            verb(state, record)
        assert len(of.all(state)) == 1

    def test_one_that_is_not_there(self, state: State, of: Noun, verb: Any) -> None:
        record = of.make(1)
        with pytest.raises(of.missing):
            verb(state, record)
        assert not record.valid

    def test_one_of_another_namespace(self, state: State, of: Noun, verb: Any) -> None:
        record = of.make(1, namespace="b")
        of.add(state, record)
        state.set_namespace("a")
        with pytest.raises(NamespaceMismatch):
            verb(state, record)
        assert record.valid
        state.set_namespace("")
        assert len(of.all(state)) == 1


# --- containers ------------------------------------------------------------------------


class TestRemoveContainer:
    def test_it_is_gone_with_id_and_name(self, state: State) -> None:
        state.add_container(ctr(1))
        state.add_container(ctr(2))
        state.remove_container(state.container(identifier(1)))
        assert ids(state.all_containers()) == ["2"]
        state.add_container(ctr(1))

    def test_one_that_is_not_there(self, state: State) -> None:
        record = ctr(1)
        with pytest.raises(NoSuchContainer):
            state.remove_container(record)
        assert not record.valid

    def test_one_of_another_namespace_stays(self, state: State) -> None:
        record = ctr(1, namespace="b")
        state.add_container(record)
        state.set_namespace("a")
        with pytest.raises(NamespaceMismatch):
            state.remove_container(record)
        state.set_namespace("")
        assert same(state.container(identifier(1)), record)

    def test_one_in_a_pod_is_refused(self, state: State) -> None:
        state.add_pod(pod(1))
        record = ctr(2, pod=1)
        state.add_container_to_pod(state.pod(identifier(1)), record)
        with pytest.raises(PodExists):
            state.remove_container(record)
        assert ids(state.all_containers()) == ["2"]


NAMESPACES_FROM = ("ipc", "mount", "net", "pid", "user", "uts", "cgroup")


class TestDependencies:
    @pytest.mark.parametrize(
        "needs",
        [
            {"needs": (1,)},
            joins(1, "user"),
            joins(1, *NAMESPACES_FROM),
            joins(1, "net", "pid", needs=(1,)),
            *[joins(1, kind) for kind in NAMESPACES_FROM],
        ],
        ids=["named", "one namespace", "all namespaces", "both", *NAMESPACES_FROM],
    )
    def test_each_kind_holds_a_container_once(self, state: State, needs: dict[str, Any]) -> None:
        one, two = ctr(1), ctr(2, **needs)
        state.add_container(one)
        assert state.container_in_use(one) == []
        state.add_container(two)
        assert state.container_in_use(one) == [two.id]
        assert state.container_in_use(two) == []
        with pytest.raises(ContainerExists) as caught:
            state.remove_container(one)
        assert two.id in str(caught.value)
        assert ids(state.all_containers()) == ["1", "2"]
        state.remove_container(two)
        assert state.container_in_use(one) == []
        state.remove_container(one)
        assert state.all_containers() == []

    def test_several_need_one_and_one_needs_several(self, state: State) -> None:
        one, two = ctr(1), ctr(2)
        three = ctr(3, needs=(1, 2))
        four = ctr(4, **joins(1, "uts"), needs=(2,))
        for record in (one, two, three, four):
            state.add_container(record)
        assert state.container_in_use(one) == [three.id, four.id]
        assert state.container_in_use(two) == [three.id, four.id]
        state.remove_container(three)
        assert state.container_in_use(one) == [four.id]

    @pytest.mark.parametrize(
        ("needs", "error"),
        [
            ({"needs": (9,)}, NoSuchContainer),
            (joins(9, "user"), NoSuchContainer),
            ({"needs": (1,)}, NoSuchContainer),  # itself
            ({"needs": (2,)}, NoSuchContainer),  # a pod
            ({"needs": (3,)}, InvalidArgument),  # in a pod
            ({"needs": (4, 5)}, NamespaceMismatch),
        ],
    )
    def test_bad_ones_add_nothing(
        self, state: State, needs: dict[str, Any], error: type[Exception]
    ) -> None:
        state.add_pod(pod(2))
        state.add_container_to_pod(state.pod(identifier(2)), ctr(3, pod=2))
        state.add_container(ctr(4))
        state.add_container(ctr(5, namespace="elsewhere"))
        with pytest.raises(error):
            state.add_container(ctr(1, **needs))
        assert ids(state.all_containers()) == ["3", "4", "5"]
        assert state.container_in_use(state.container(identifier(4))) == []
        state.add_container(ctr(1))

    @pytest.mark.parametrize("ours", ["", "a"])
    def test_same_namespace(self, state: State, ours: str) -> None:
        state.set_namespace(ours)
        state.add_container(ctr(1, namespace="a"))
        state.add_container(ctr(2, namespace="a", needs=(1,)))
        assert ids(state.all_containers()) == ["1", "2"]

    def test_one_with_a_pod_needs_its_own_verb(self, state: State) -> None:
        state.add_pod(pod(1))
        with pytest.raises(InvalidArgument):
            state.add_container(ctr(2, pod=1))
        assert state.all_containers() == []


class TestRename:
    def test_everywhere(self, state: State) -> None:
        state.add_pod(pod(1))
        holder = state.pod(identifier(1))
        state.add_container_to_pod(holder, ctr(2, pod=1))
        record = ctr(3, pod=1, needs=(2,))
        state.add_container_to_pod(holder, record)
        state.rename_container(record, "web")
        assert (record.name, record.config.name) == ("web", "web")
        assert record.config.spec == SPEC
        assert same(state.lookup_container("web"), record)
        with pytest.raises(NoSuchContainer):
            state.lookup_container("test3")
        state.remove_container_from_pod(holder, record)
        state.add_container(ctr(3))
        state.add_container(ctr(4, name="web"))

    def test_refused(self, state: State) -> None:
        record = ctr(1)
        state.add_container(record)
        state.add_pod(pod(2))
        for name, error in (("test2", ContainerExists), ("", BadRecord), ("no/slash", BadRecord)):
            with pytest.raises(error):
                state.rename_container(record, name)
        state.rename_container(record, "test1")  # its own
        assert same(state.lookup_container("test1"), record)


# --- pods --------------------------------------------------------------------------------


def filled(state: State, *members: ContainerRecord, number: object = 1, **config: Any) -> PodRecord:
    """A pod in the state, with these containers."""
    record = pod(number, **config)
    state.add_pod(record)
    for member in members:
        state.add_container_to_pod(record, member)
    return record


class TestPodMembers:
    def test_growing(self, state: State) -> None:
        holder = filled(state)
        state.add_container(ctr(9))
        assert state.pod_containers_by_id(holder) == []
        assert state.pod_containers(holder) == []
        for number, expected in ((2, ["2"]), (4, ["2", "4"]), (3, ["2", "3", "4"])):
            state.add_container_to_pod(holder, ctr(number, pod=1))
            assert [i[:1] for i in state.pod_containers_by_id(holder)] == expected
            assert ids(state.pod_containers(holder)) == expected
        assert ids(state.all_containers()) == ["2", "3", "4", "9"]
        found = state.pod_containers(holder)[0]
        assert same(found, ctr(2, pod=1, created=found.config.created))
        assert found.pod_id == identifier(1)

    @pytest.mark.parametrize(("wanted", "answer"), [(2, True), (3, False), (9, False), (1, False)])
    def test_has(self, state: State, wanted: object, answer: bool) -> None:
        holder = filled(state, ctr(2, pod=1))
        state.add_container(ctr(3))
        assert state.pod_has_container(holder, identifier(wanted)) is answer

    def test_has_nothing_without_an_id(self, state: State) -> None:
        with pytest.raises(EmptyID):
            state.pod_has_container(filled(state), "")


class TestRemovePod:
    def test_empty_ones_only(self, state: State) -> None:
        member = ctr(2, pod=1)
        holder, another = filled(state, member), filled(state, number=3)
        with pytest.raises(ContainerExists):
            state.remove_pod(holder)
        assert ids(state.all_pods()) == ["1", "3"]
        state.remove_container_from_pod(holder, member)
        state.remove_pod(holder)
        assert ids(state.all_pods()) == ["3"]
        state.remove_pod(another)
        assert state.all_pods() == []
        state.add_pod(pod(1))


class TestRemovePodContainers:
    def test_all_at_once_whatever_needs_what(self, state: State) -> None:
        holder = filled(state)
        state.remove_pod_containers(holder)
        for member in (
            ctr(2, pod=1),
            ctr(3, pod=1, needs=(2,)),
            ctr(4, pod=1, **joins(2, "net"), needs=(3,)),
        ):
            state.add_container_to_pod(holder, member)
        state.add_container(ctr(9))
        state.remove_pod_containers(holder)
        assert state.pod_containers(holder) == []
        assert ids(state.all_containers()) == ["9"]
        assert ids(state.all_pods()) == ["1"]
        state.remove_pod(holder)

    def test_nothing_of_them_stays_in_a_namespace(self, state: State) -> None:
        state.set_namespace("a")
        holder = filled(state, ctr(2, pod=1, namespace="a"), namespace="a")
        state.remove_pod_containers(holder)
        state.set_namespace("b")
        state.add_container(ctr(2, namespace="b"))
        assert state.lookup_container("2").namespace == "b"
        state.set_namespace("a")
        with pytest.raises(NoSuchContainer):
            state.lookup_container("test2")


class TestAddContainerToPod:
    def test_both_handles_must_be_valid(self, state: State) -> None:
        holder, member = filled(state), ctr(2, pod=1)
        member.valid = False
        with pytest.raises(ContainerRemoved):
            state.add_container_to_pod(holder, member)
        member.valid, holder.valid = True, False
        with pytest.raises(PodRemoved):
            state.add_container_to_pod(holder, member)
        assert state.all_containers() == []

    def test_the_pod_must_be_the_containers_own(self, state: State) -> None:
        holder = filled(state)
        for stranger in (ctr(2), ctr(2, pod=3)):
            with pytest.raises(InvalidArgument):
                state.add_container_to_pod(holder, stranger)
        assert state.all_containers() == []

    @pytest.mark.parametrize(
        "members",
        [
            {"id": identifier(9)},
            {"name": "test9"},
            {"id": identifier(1)},
            {"name": "test1"},
        ],
        ids=["container's ID", "container's name", "pod's ID", "pod's name"],
    )
    def test_conflicts(self, state: State, members: dict[str, Any]) -> None:
        holder = filled(state)
        state.add_container(ctr(9))
        with pytest.raises(ContainerExists):
            state.add_container_to_pod(holder, ctr(2, pod=1, **members))
        assert state.pod_containers(holder) == []
        assert ids(state.all_containers()) == ["9"]

    def test_dependencies_inside_the_pod(self, state: State) -> None:
        one = ctr(2, pod=1)
        filled(state, one, ctr(3, pod=1, **joins(2, "ipc"), needs=(2,)))
        assert state.container_in_use(one) == [identifier(3)]

    @pytest.mark.parametrize(
        ("needs", "error"),
        [
            (1, NoSuchContainer),  # the pod
            (7, NoSuchContainer),
            (8, InvalidArgument),  # in no pod
            (6, InvalidArgument),  # in another pod
        ],
    )
    def test_dependencies_outside_it(
        self, state: State, needs: object, error: type[Exception]
    ) -> None:
        holder = filled(state, ctr(2, pod=1))
        filled(state, ctr(6, pod=5), number=5)
        state.add_container(ctr(8))
        with pytest.raises(error):
            state.add_container_to_pod(holder, ctr(3, pod=1, needs=(2, needs)))
        assert ids(state.pod_containers(holder)) == ["2"]
        for record in state.all_containers():
            assert state.container_in_use(record) == []

    @pytest.mark.parametrize(
        ("ours", "of_pod", "of_container", "works"),
        [
            ("", "a", "a", True),
            ("a", "a", "a", True),
            ("", "a", "b", False),
            ("", "a", "", False),
            ("", "", "a", False),
            ("b", "a", "a", False),
            ("a", "a", "b", False),
        ],
    )
    def test_namespaces(
        self, state: State, ours: str, of_pod: str, of_container: str, works: bool
    ) -> None:
        holder = filled(state, namespace=of_pod)
        state.set_namespace(ours)
        member = ctr(2, pod=1, namespace=of_container)
        if works:
            state.add_container_to_pod(holder, member)
        else:
            with pytest.raises(NamespaceMismatch):
                state.add_container_to_pod(holder, member)
        state.set_namespace("")
        assert ids(state.all_containers()) == (["2"] if works else [])


class TestRemoveContainerFromPod:
    def test_it_leaves_the_state_too(self, state: State) -> None:
        member, stays = ctr(2, pod=1), ctr(3, pod=1)
        holder = filled(state, member, stays)
        state.remove_container_from_pod(holder, member)
        assert ids(state.pod_containers(holder)) == ["3"]
        assert ids(state.all_containers()) == ["3"]
        with pytest.raises(NoSuchContainer):
            state.remove_container_from_pod(holder, member)
        assert not member.valid
        assert holder.valid

    @pytest.mark.parametrize("in_pod", [None, 5])
    def test_one_that_is_not_in_it_stays(self, state: State, in_pod: object) -> None:
        holder, another = filled(state), filled(state, number=5)
        stranger = ctr(2, pod=in_pod)
        if in_pod is None:
            state.add_container(stranger)
        else:
            state.add_container_to_pod(another, stranger)
        with pytest.raises(NoSuchPod if in_pod is None else InvalidArgument):
            state.remove_container_from_pod(holder, stranger)
        assert stranger.valid
        assert ids(state.all_containers()) == ["2"]

    def test_dependents_go_first(self, state: State) -> None:
        one, two = ctr(2, pod=1), ctr(3, pod=1, needs=(2,))
        holder = filled(state, one, two)
        with pytest.raises(ContainerExists):
            state.remove_container_from_pod(holder, one)
        assert ids(state.pod_containers(holder)) == ["2", "3"]
        state.remove_container_from_pod(holder, two)
        state.remove_container_from_pod(holder, one)
        assert state.pod_containers(holder) == []

    @pytest.mark.parametrize(("ours", "works"), [("a", True), ("b", False)])
    def test_namespaces(self, state: State, ours: str, works: bool) -> None:
        member = ctr(2, pod=1, namespace="a")
        holder = filled(state, member, namespace="a")
        state.set_namespace(ours)
        if works:
            state.remove_container_from_pod(holder, member)
        else:
            with pytest.raises(NamespaceMismatch):
                state.remove_container_from_pod(holder, member)
        state.set_namespace("")
        assert len(state.all_containers()) == (0 if works else 1)


# --- the state itself -----------------------------------------------------------------------


class TestRefresh:
    def test_resets_what_a_reboot_ends_and_nothing_else(self, state: State) -> None:
        record = ctr(1, namespace="elsewhere")
        kept = {
            "exit_code": 7,
            "exited": True,
            "oom_killed": True,
            "started": 1_000_000_000,
            "finished": 2_000_000_001,
            "run_dir": "/run/1",
            "config_path": "/static/config.json",
            "extension_stage_hooks": {"poststop": []},
        }
        record.state = record.state.but(
            **kept, conmon_pid=5, network_status={"podman": {}}, stopped_by_user=True
        )
        record.netns = "/run/netns/x"
        state.add_container(record)
        state.add_pod(pod(2))
        state.set_namespace("ours")
        state.refresh()
        state.set_namespace("")
        after = state.container(identifier(1))
        assert after.netns == ""
        assert after.state == ContainerState(**kept)
        assert after.config == record.config
        assert state.pod(identifier(2)).state.cgroup_path == ""

    @pytest.mark.parametrize("status", ContainerStatus)
    def test_states(self, state: State, status: ContainerStatus) -> None:
        record = ctr(1)
        record.state.status = status
        state.add_container(record)
        state.refresh()
        exited = status is ContainerStatus.EXITED
        expected = ContainerStatus.EXITED if exited else ContainerStatus.CONFIGURED
        assert state.container(identifier(1)).state.status is expected

    def test_an_empty_one(self, state: State) -> None:
        state.refresh()
        assert state.all_containers() == []


class TestExitCodes:
    def test_they_outlive_their_container_until_pruned(self, state: State) -> None:
        record = ctr(1)
        state.add_container(record)
        assert state.exit_code(record.id) is None
        record.state.finished = 1_000
        state.save_container(record, exit_code=137)
        state.remove_container(record)
        assert state.exit_code(record.id) == 137
        state.prune_exit_codes(1_000)
        assert state.exit_code(record.id) == 137
        state.prune_exit_codes(1_001)
        assert state.exit_code(record.id) is None

    def test_a_reboot_ends_them(self, state: State) -> None:
        record = ctr(1)
        state.add_container(record)
        state.save_container(record, exit_code=1)
        state.refresh()
        assert state.exit_code(record.id) is None


def test_known_ids(state: State) -> None:
    assert state.known_ids() == set()
    state.add_container(ctr(1))
    state.add_container(ctr(2, namespace="elsewhere"))
    state.add_pod(pod(3))
    state.set_namespace("elsewhere")
    assert state.known_ids() == {identifier(number) for number in (1, 2, 3)}


CALLS: list[Callable[[State], Any]] = [
    lambda state: state.refresh(),
    lambda state: state.known_ids(),
    lambda state: state.container(identifier(1)),
    lambda state: state.lookup_container("1"),
    lambda state: state.has_container(identifier(1)),
    lambda state: state.all_containers(),
    lambda state: state.add_container(ctr(1)),
    lambda state: state.update_container(ctr(1)),
    lambda state: state.save_container(ctr(1)),
    lambda state: state.rename_container(ctr(1), "x"),
    lambda state: state.remove_container(ctr(1)),
    lambda state: state.container_in_use(ctr(1)),
    lambda state: state.exit_code("1"),
    lambda state: state.prune_exit_codes(0),
    lambda state: state.pod(identifier(1)),
    lambda state: state.lookup_pod("1"),
    lambda state: state.has_pod(identifier(1)),
    lambda state: state.all_pods(),
    lambda state: state.add_pod(pod(1)),
    lambda state: state.update_pod(pod(1)),
    lambda state: state.save_pod(pod(1)),
    lambda state: state.remove_pod(pod(1)),
    lambda state: state.pod_has_container(pod(1), "1"),
    lambda state: state.pod_containers_by_id(pod(1)),
    lambda state: state.pod_containers(pod(1)),
    lambda state: state.add_container_to_pod(pod(1), ctr(2, pod=1)),
    lambda state: state.remove_container_from_pod(pod(1), ctr(2, pod=1)),
    lambda state: state.remove_pod_containers(pod(1)),
]


def test_the_list_of_calls_is_complete() -> None:
    silent = {"close", "set_namespace", "namespace"}
    verbs = {name for name in vars(State) if not name.startswith("_")} - silent
    assert {name for call in CALLS for name in call.__code__.co_names} >= verbs


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_state_answers_nothing(state: State, call: Callable[[State], Any]) -> None:
    state.close()
    state.close()
    with pytest.raises(DBClosed):
        call(state)


BAD_RECORDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # what, in the config, in the spec
    ("short ID", {"id": "12"}, {}),
    ("no name", {"name": ""}, {}),
    ("name with a slash", {"name": "a/b"}, {}),
    ("no static directory", {"static_dir": ""}, {}),
    ("no log path", {"log_path": ""}, {}),
    ("no shm directory", {"shm_dir": ""}, {}),
    ("negative lock", {"lock_id": -1}, {}),
    ("large lock", {"lock_id": 1 << 32}, {}),
    ("text for a number", {"shm_size": "64m"}, {}),
    ("label that is no text", {"labels": {"a": 1}}, {}),
    ("command that is no list", {"command": "sh"}, {}),
    ("no process", {}, {"process": None}),
    ("no arguments", {}, {"process": {**SPEC["process"], "args": []}}),
    ("no capabilities", {}, {"process": {"args": ["sh"], "env": [], "cwd": "/"}}),
    ("no root", {}, {"root": None}),
    ("no linux", {}, {"linux": None}),
    ("no namespaces", {}, {"linux": {}}),
    ("no mounts", {}, {"mounts": None}),
    ("process that is a list", {}, {"process": []}),
]


@pytest.mark.parametrize(
    ("members", "parts"), [row[1:] for row in BAD_RECORDS], ids=[row[0] for row in BAD_RECORDS]
)
def test_what_podman_would_choke_on_is_not_written(
    state: State, members: dict[str, Any], parts: dict[str, Any]
) -> None:
    good = ctr(1)
    bad_config = ContainerConfig({**SPEC, **parts}, **{**_members(good), **members})
    with pytest.raises(BadRecord) as caught:
        state.add_container(ContainerRecord.new(bad_config, good.state))
    assert caught.value.key == "config"
    assert (caught.value.bucket or "").startswith("ctr/")
    assert state.all_containers() == []
    state.add_container(good)


def _members(record: ContainerRecord) -> dict[str, Any]:
    names = ("id", "name", "static_dir", "log_path", "shm_dir")
    return {name: getattr(record.config, name) for name in names}


@pytest.mark.parametrize("change", [{"run_dir": ""}, {"pid": "1"}, {"exit_code": 1 << 31}])
def test_a_bad_state_is_not_saved(state: State, change: dict[str, Any]) -> None:
    record = ctr(1)
    state.add_container(record)
    record.state = record.state.but(**change)
    with pytest.raises(BadRecord) as caught:
        state.save_container(record)
    assert (caught.value.bucket, caught.value.key) == (f"ctr/{record.id}", "state")
    state.update_container(record)
    assert record.state == ctr(1).state


def test_types_of_states(tmp_path: Path) -> None:
    path, paths = str(tmp_path / "db"), paths_of(tmp_path)
    for wrong in (StateType.SQLITE, StateType.INVALID, 7):
        with pytest.raises(InvalidArgument):
            open_state(wrong, path, paths)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    for right, made in ((StateType.IN_MEMORY, MemoryState), (StateType.BOLTDB, BoltState)):
        opened = open_state(right, path, paths)
        assert isinstance(opened.state, made)
        assert opened.paths == paths
        opened.state.close()


def test_errors_are_the_projects_own() -> None:
    assert issubclass(BadRecord, errors.LibpodError)
