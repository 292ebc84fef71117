"""Keyset paging against plain sorting: the same rows, in the same order, whatever the keys, NULLs and page size."""

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from nacre.core import paging
from nacre.core.errors import BadRequest

meta = sa.MetaData()
things = sa.Table("things", meta, sa.Column("id", sa.String(8), primary_key=True), sa.Column("name", sa.String(8)), sa.Column("size", sa.Integer))
engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
meta.create_all(engine)
rows = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.integers(0, 2))), max_size=12)
ways = st.sampled_from(["asc", "desc"])


@settings(max_examples=120, deadline=None)
@given(rows=rows, keys=st.lists(st.tuples(st.sampled_from(["name", "size"]), ways), unique_by=lambda key: key[0]), limit=st.integers(1, 4))
def test_pages_put_together_are_the_sorted_list(rows: list[tuple[str | None, int | None]], keys: list[tuple[str, str]], limit: int) -> None:
    made = [{"id": f"{n:02d}", "name": name, "size": size} for n, (name, size) in enumerate(rows)]
    expected = [row["id"] for row in made]
    last = keys[-1][1] if keys else "asc"
    expected.sort(reverse=last == "desc")
    for key, way in reversed(keys):
        expected.sort(key=lambda i: ((v := made[int(i)][key]) is not None, v if v is not None else 0 if key == "size" else ""), reverse=way == "desc")
    with engine.connect() as conn:
        if made:
            conn.execute(things.insert(), made)
        found: list[str] = []
        more, marker = True, None
        while more:
            page = paging.Page(limit, marker, tuple(keys))
            got, more = paging.take(conn, sa.select(things), things, page)
            found += [row.id for row in got]
            marker = found[-1] if found else None
            assert len(got) <= limit
        assert found == expected
        if expected:
            back, _ = paging.take(conn, sa.select(things), things, paging.Page(limit, expected[-1], tuple(keys), reverse=True))
            assert [row.id for row in back] == expected[:-1][-limit:]


def test_bad_parameters_are_named() -> None:
    for query in ("limit=x", "limit=-1", "sort_key=color", "sort_key=name&sort_dir=up", "sort=name:up"):
        try:
            paging.page_of(QueryParams(query), most=10, keys=(("name", "asc"),), sortable={"name": "name"})
        except BadRequest as refused:
            assert query.split("=", maxsplit=1)[0].split("_")[0] in refused.message
        else:
            raise AssertionError(f"{query} was taken")
    page = paging.page_of(QueryParams("limit=50&sort=name:desc,id"), most=10, keys=(), sortable={"name": "name", "id": "id"})
    assert page.limit == 10 and page.keys == (("name", "desc"), ("id", "asc"))
