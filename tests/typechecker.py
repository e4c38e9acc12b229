"""How annotations are checked under pytest: shapes by jaxtyping, the rest by beartype; an int may pass for a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
