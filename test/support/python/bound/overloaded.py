"""Functions whose stub has overloads that differ in what they take by name only."""


class _Opaque:
    """Its signature is in the stub alone."""

    __signature__ = 0

    def __call__(self, value, **options):
        return [value, options]


measured = _Opaque()
