"""One module per rung of the ladder, each with ``check(scope) -> Iterable[Claim]``."""
