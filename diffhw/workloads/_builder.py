"""A small builder for networks written down by hand: follows shapes, parameters and edges.

Used by the zoo. A tensor is (channels, rows, columns) with the layers that made it; a token sequence
is a tensor of ``h`` rows and one column.
"""

from dataclasses import dataclass

from diffhw.workloads._layer import Layer, Network, NetworkInfo, Operator, layer_numbers, share_note

__all__ = ["Builder", "Tensor"]


@dataclass(frozen=True)
class Tensor:
    """Shape of one sample and the indices of the layers whose outputs it is made of."""

    c: int
    h: int = 1
    w: int = 1
    made_by: frozenset[int] = frozenset()

    @property
    def size(self) -> int:
        return self.c * self.h * self.w


class Builder:
    """Collects layers, other parameters, non-MAC operators and edges of one network."""

    def __init__(self, name: str, source: str, batch: int = 1, notes: tuple[str, ...] = ()):
        self.name, self.source, self.batch, self.notes = name, source, batch, notes
        self.layers: list[Layer] = []
        self.names: list[str] = []
        self.edges: list[tuple[int, int]] = []
        self.operators: list[Operator] = []
        self.other_params = 0

    def layer(self, name: str, inputs: tuple[Tensor, ...], out: tuple[int, int, int], **numbers) -> Tensor:
        """One layer; ``out`` is (c, h, w) of what it makes."""
        index = len(self.layers)
        self.layers.append(Layer(**layer_numbers(**numbers)))
        self.names.append(name)
        self.edges += sorted({(source, index) for tensor in inputs for source in tensor.made_by})
        return Tensor(*out, made_by=frozenset({index}))

    def op(self, kind: str, *inputs: Tensor, name: str = "", out: Tensor | None = None) -> Tensor:
        """A non-MAC operator, by default of the first input's shape."""
        shape = out or inputs[0]
        made_by = frozenset().union(*(tensor.made_by for tensor in inputs))
        self.operators.append(Operator(name or kind, kind, shape.size * self.batch))
        return Tensor(shape.c, shape.h, shape.w, made_by)

    def conv(
        self,
        x: Tensor,
        k: int,
        f: int,
        name: str,
        *,
        stride: int = 1,
        pad: int | None = None,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        act: str = "relu",
    ) -> Tensor:
        """F x f convolution, then batch norm (2 parameters a channel) and an activation if asked.

        pad: on each side; None keeps the size at stride 1.
        """
        pad = (f - 1) // 2 if pad is None else pad
        p, q = ((size + 2 * pad - f) // stride + 1 for size in (x.h, x.w))
        out = self.layer(
            name,
            (x,),
            (k, p, q),
            n=self.batch,
            g=groups,
            k=k // groups,
            c=x.c // groups,
            p=p,
            q=q,
            r=f,
            s=f,
            h=x.h,
            w=x.w,
            pad_top=pad,
            pad_left=pad,
            stride_h=stride,
            stride_w=stride,
        )
        self.other_params += k * bias + 2 * k * norm
        if norm:
            out = self.op("batch_norm", out, name=f"{name}.norm")
        return self.op(act, out, name=f"{name}.{act}") if act else out

    def depthwise(self, x: Tensor, f: int, name: str, **options) -> Tensor:
        """One f x f filter per channel."""
        return self.conv(x, x.c, f, name, groups=x.c, **options)

    def up_conv(self, x: Tensor, k: int, f: int, name: str) -> Tensor:
        """Transposed f x f convolution of stride f: every input pixel makes f x f outputs of k channels.

        Written as the product it is (each pixel's c values by a c x (k f f) matrix), with a bias.
        """
        out = self.layer(
            name, (x,), (k, x.h * f, x.w * f), n=self.batch, k=k * f * f, c=x.c, p=x.h, q=x.w, h=x.h, w=x.w
        )
        self.other_params += k
        return out

    def linear(self, x: Tensor, k: int, name: str, *, bias: bool = True, act: str = "") -> Tensor:
        """Matrix product over the channels of every token (p = batch x tokens)."""
        rows = self.batch * x.h
        out = self.layer(name, (x,), (k, x.h, 1), p=rows, q=1, c=x.c, k=k)
        self.other_params += k * bias
        return self.op(act, out, name=f"{name}.{act}") if act else out

    def product(self, a: Tensor, b: Tensor, name: str, *, g: int, p: int, c: int, k: int) -> Tensor:
        """Product of two activations: per sample g products of a p x c by a c x k matrix."""
        return self.layer(
            name, (a, b), (k, g * p, 1), g=self.batch * g, p=p, q=1, c=c, k=k, weight_is_activation=1
        )

    def pool(
        self,
        x: Tensor,
        f: int,
        stride: int,
        name: str,
        *,
        pad: int = 0,
        ceil: bool = False,
        kind: str = "max_pool",
    ) -> Tensor:
        """Pooling window; ``ceil`` keeps the overhanging last window."""
        over = stride - 1 if ceil else 0
        p, q = ((size + 2 * pad - f + over) // stride + 1 for size in (x.h, x.w))
        return self.op(kind, x, name=name, out=Tensor(x.c, p, q))

    def global_pool(self, x: Tensor, name: str = "avgpool") -> Tensor:
        """Average over all pixels."""
        return self.op("avg_pool", x, name=name, out=Tensor(x.c))

    def layer_norm(self, x: Tensor, name: str, *, bias: bool = True) -> Tensor:
        """Layer norm (2 parameters a channel), or RMS norm (1) without bias."""
        self.other_params += x.c * (1 + bias)
        return self.op("layer_norm" if bias else "rms_norm", x, name=name)

    def network(self) -> Network:
        """All of it as a `Network`."""
        produced = sum(z.n * z.g * z.k * z.p * z.q for z in self.layers)
        return Network.create(
            self.layers,
            other_params=self.other_params,
            info=NetworkInfo(
                name=self.name,
                names=tuple(self.names),
                edges=tuple(self.edges),
                operators=tuple(self.operators),
                source=self.source,
                notes=(*self.notes, share_note(self.operators, int(produced))),
            ),
        )
