"""Functions whose stub has overloads that differ in what they take."""


class _Opaque:
    """Its signature is in the stub alone."""

    __signature__ = 0

    def __call__(self, value, **options):
        return [value, options]


measured = _Opaque()
class _Span(_Opaque):
    """As `range` and `numpy.arange` do, one argument less changes what the first one means."""

    def __call__(self, *args, **options):
        return [list(args), options]


span, joined = _Span(), _Span()
