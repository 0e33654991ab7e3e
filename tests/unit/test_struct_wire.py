"""The bytes of a Struct, read by protobuf itself."""

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from service.rls.struct_wire import write_struct

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


@given(st.dictionaries(st.text(), values))
def test_protobuf_reads_the_same_bytes_that_it_would_write(members):
    expected = Struct()
    for name, value in members.items():
        expected.update({name: value})
    assert Struct.FromString(write_struct(members)) == expected


def test_members_longer_than_a_byte_of_length_can_say_are_read():
    members = {"long": "x" * 300_000, "many": [{"n": float(number)} for number in range(200)]}
    assert MessageToDict(Struct.FromString(write_struct(members))) == members


def test_what_is_no_json_is_refused():
    with pytest.raises(TypeError, match="bytes is no JSON value"):
        write_struct({"a": b"x"})
