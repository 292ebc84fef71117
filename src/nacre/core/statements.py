"""Statements that are built and compiled once.

To build a SELECT, find its compiled text by what it looks like and carry it through the layers of an execution costs SQLAlchemy some
200 us; SQLite then needs 10. A `Statement` is made once, with `given(name)` for each of its parameters, keeps its text (one for each
dialect and number of members of its IN lists, which are filled up to a power of two, so that there are few) with the types' conversions, and
is run on the driver's own cursor:

    _BY_ID = Statement(sa.select(servers).where(servers.c.id == given("id")))
    _BY_ID.first(conn, id=server_id)

It is part of the connection's transaction; its errors and who listens to executions are the same. It is for what runs often. Its rows read
like SQLAlchemy's, by name, position and `_mapping`, and are tuples: a column by its name costs 50 ns, not 330.
Where most rows are only compared with what they were (core/rendered.py), `lazy` leaves what the driver gave in the tuple and makes a value
of it each time that its name is read: such rows are read by name alone.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Protocol, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

Row = sa.Row[Any]
Convert = Any  # a function, typed as SQLAlchemy likes it
_FILLED = 1024


class Holder(Protocol):
    """A transaction, which has a connection."""

    @property
    def conn(self) -> sa.Connection: ...


Conn = sa.Connection | Holder


def given(name: str) -> sa.BindParameter[Any]:
    """A parameter of a statement."""
    return sa.bindparam(name)


def given_list(name: str) -> sa.BindParameter[Any]:
    """The members of an IN."""
    return sa.bindparam(name, expanding=True)


def rows(conn: Conn, clause: sa.Select[Any]) -> list[Row]:
    """The same rows of what cannot be a `Statement`, since its shape depends on the request."""
    found = conn.execute(clause) if isinstance(conn, sa.Connection) else conn.conn.execute(clause)
    made = _row(tuple(found.keys()))
    return cast(list[Row], [made(row) for row in found.fetchall()])


@cache
def _row(names: tuple[str, ...]) -> Any:
    """The type of rows with these columns."""
    columns = {name: property(itemgetter(position)) for position, name in enumerate(names)}
    return type("Row", (tuple,), {**columns, "__slots__": (), "_mapping": property(lambda row: dict(zip(names, row, strict=True)))})


def _lazy_row(row: Any, converts: Sequence[Convert | None]) -> Any:
    """A `row` whose values are made when they are read."""
    names = [name for name, part in vars(row).items() if isinstance(part, property) and name != "_mapping"]
    made = {name: _made_at(position, convert) for position, (name, convert) in enumerate(zip(names, converts, strict=True)) if convert}
    return type("LazyRow", (row,), {"__slots__": (), **made})


def _made_at(position: int, convert: Convert) -> property:
    return property(lambda row: None if row[position] is None else convert(row[position]))


class Statement:
    """`keys`: for an INSERT or UPDATE without values, the columns that are given. `lazy`: how its rows are read (above)."""

    def __init__(self, clause: sa.Executable, keys: Sequence[str] | None = None, *, lazy: bool = False) -> None:
        self.clause, self.keys, self.lazy = clause, keys, lazy
        self._compiled: dict[str, tuple[SQLCompiler, list[str]]] = {}
        self._texts: dict[tuple[Any, ...], _Text] = {}

    def rows(self, conn: Conn, **values: Any) -> list[Row]:
        text, cursor = self._run(conn, values)
        try:
            return text.rows(cursor)
        finally:
            cursor.close()

    def first(self, conn: Conn, **values: Any) -> Row | None:
        found = self.rows(conn, **values)
        return found[0] if found else None

    def scalar(self, conn: Conn, **values: Any) -> Any:
        """The first column of the first row, or None."""
        found = self.rows(conn, **values)
        return found[0][0] if found else None

    def change(self, conn: Conn, **values: Any) -> int:
        """How many rows there were to change."""
        _, cursor = self._run(conn, values)
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def _run(self, conn: Conn, values: dict[str, Any]) -> "tuple[_Text, Any]":
        plain = conn if isinstance(conn, sa.Connection) else conn.conn
        compiled, lists = self._compiled.get(plain.dialect.name) or self._compile(plain.dialect)
        values |= {name: _filled(values[name]) for name in lists}
        key = (plain.dialect.name, *(len(values[name]) for name in lists))
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = _Text(compiled, lists, values, lazy=self.lazy)
        if not plain.in_transaction():
            plain.begin()
        cursor, arguments = plain.connection.cursor(), text.arguments(values)
        for listener in plain.dispatch.before_cursor_execute:
            listener(plain, cursor, text.sql, arguments, None, False)
        try:
            cursor.execute(text.sql, arguments)
        except Exception as error:
            plain._handle_dbapi_exception(error, text.sql, arguments, cursor, None)
        return text, cursor

    def _compile(self, dialect: sa.Dialect) -> tuple[SQLCompiler, list[str]]:
        assert isinstance(self.clause, sa.ClauseElement)
        compiled = self.clause.compile(dialect=dialect, column_keys=self.keys)
        assert isinstance(compiled, SQLCompiler)
        made = self._compiled[dialect.name] = compiled, sorted(name for bind, name in compiled.bind_names.items() if bind.expanding and bind.required)
        return made


def _filled(members: Collection[Any]) -> list[Any]:
    """The same set; of many, which are rare, not one more than the database takes."""
    whole = list(members)
    size = 1 << (len(whole) - 1).bit_length() if whole else 0
    return whole + whole[-1:] * (size - len(whole)) if size <= _FILLED else whole


class _Text:
    """A statement's SQL for one dialect and one number of members in each IN."""

    def __init__(self, compiled: SQLCompiler, lists: list[str], values: dict[str, Any], *, lazy: bool) -> None:
        self.lists: list[tuple[str, list[str]]] = []
        converts: dict[str, Any] = dict(compiled._bind_processors)
        known: Mapping[str, Any] = compiled.params
        order: Sequence[str] | None
        self.sql, order = compiled.string, compiled.positiontup
        if any(bind.expanding for bind in compiled.bind_names):
            state = compiled.construct_expanded_state(values)
            self.sql, order, known = state.statement, state.positiontup, state.parameters
            converts |= state.processors
            self.lists = [(name, state.parameter_expansion[name]) for name in lists]
        members = {member for _, expanded in self.lists for member in expanded}
        names = list(known) if order is None else list(order)
        self.constants = {name: known[name] for name in names if name not in values and name not in members}
        self.names, self.positional = names, order is not None
        self.converts_in = [converts.get(name) for name in names]
        self.dialect, self.columns, self.lazy = compiled.dialect, compiled._result_columns, lazy
        self._made = _row(tuple(column.keyname for column in self.columns))
        self._converts: list[tuple[int, Convert]] | None = None

    def rows(self, cursor: Any) -> list[Row]:
        """What makes our values of the driver's depends on the types that the first answer names."""
        if self._converts is None:
            kinds = [told[1] for told in cursor.description]
            found = [_convert(column.type, self.dialect, kind) for column, kind in zip(self.columns, kinds, strict=True)]
            if self.lazy:
                self._made = _lazy_row(_row(tuple(column.keyname for column in self.columns)), found)
            # The last thing: who finds this there takes the rows as they are made by then.
            self._converts = [(position, convert) for position, convert in enumerate(found) if convert and not self.lazy]
        made, plain = self._made, cursor.fetchall()
        if not self._converts:
            return cast(list[Row], [made(row) for row in plain])
        whole = []
        for row in plain:
            values = list(row)
            for position, convert in self._converts:
                if (value := values[position]) is not None:
                    values[position] = convert(value)
            whole.append(made(values))
        return cast(list[Row], whole)

    def arguments(self, values: dict[str, Any]) -> Any:
        whole = {**self.constants, **values} if self.constants else values
        if self.lists:
            whole = dict(whole)
            for name, members in self.lists:
                whole.update(zip(members, values[name], strict=True))
        plain = [whole[name] if convert is None else convert(whole[name]) for name, convert in zip(self.names, self.converts_in, strict=True)]
        return tuple(plain) if self.positional else dict(zip(self.names, plain, strict=True))


def _convert(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect, told: Any) -> Convert | None:
    """How a value of the driver becomes one of ours. JSON that comes as text is decoded without the detour that SQLAlchemy takes."""
    if isinstance(kind, sa.JSON) and dialect.name == "sqlite":
        return _json
    return kind.dialect_impl(dialect).result_processor(dialect, told)


def _json(stored: Any) -> Any:
    return msgspec.json.decode(stored) if isinstance(stored, str) else stored  # SQLite keeps a JSON number as a number
