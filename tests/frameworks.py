"""The frameworks of the conformance suite, each behind the same few methods, which take and give NumPy arrays."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import warnings
from functools import cache, lru_cache, partial

import ml_dtypes
import numpy as np
import pytest
from _device import FRAMEWORKS as DEVICE_FRAMEWORKS
from _device import gpu_of

import eccentric_core


def require_gpu(config, library):
    """Fail where --device asks for a GPU and a library that can use one finds none."""
    if config.getoption("--device") == "gpu" and library in DEVICE_FRAMEWORKS and gpu_of(library) is None:
        pytest.fail(f"--device gpu: {library} finds none")


def compute_name(dtype):
    """The dtype that a loss of rows of that dtype has."""
    return "float64" if dtype == "float64" else "float32"


class Framework:
    """A framework in one of its modes. A function under test maps arrays of the framework to one array.

    A subclass says how the framework differentiates (`gradients`, `products`) and how it compiles. What is compiled is
    kept for every function, so that tests share it.
    """

    # The mode compiles the function under test.
    compiled = False
    # The library compiles what the package gives it, in every mode.
    compiles = False
    # Its derivatives are functions of their own.
    plain = False

    def __init__(self, name):
        self.name = name
        self._kept = {}

    def __repr__(self):
        return self.name

    @property
    def module(self):
        """The adapter."""
        return importlib.import_module(self.adapter)

    def loss(self, mu=1.0, scale="paper"):
        """The loss as a function of z alone, the same one for the same arguments."""
        return _loss(self, mu, scale)

    def pair_sum(self, kernel, **options):
        """The sum over pairs as a function of one set or of two, the same one for the same arguments."""
        return _pair_sum(self, kernel, **options)

    def value(self, f, *xs, dtype=None):
        """f(*xs)."""
        return self._run("evaluated", f, xs, [dtype or x.dtype.name for x in xs])

    def value_and_grad(self, f, *xs, dtype=None, cotangent=None):
        """f(*xs) and, times a cotangent, its gradient with respect to every one of xs."""
        if cotangent is None:
            cotangent = np.ones(xs[0].shape[:-2])
        cotangent = np.asarray(cotangent, dtype=compute_name(dtype or xs[0].dtype.name))
        dtypes = [cotangent.dtype.name, *(dtype or x.dtype.name for x in xs)]
        return self._run("differentiated", f, (cotangent, *xs), dtypes)

    def hvp(self, f, xs, us):
        """The derivatives along us of the gradients of f, a scalar function of xs."""
        return self._run("differentiated_twice", f, (*xs, *us), [a.dtype.name for a in (*xs, *us)])

    def _run(self, kind, f, arrays, dtypes):
        with self.context("float64" in dtypes):
            arrays = [self.array(a, name) for a, name in zip(arrays, dtypes, strict=True)]
            key = kind, f, self.signature(arrays)
            if key not in self._kept:
                self._kept[key] = self.compile(getattr(self, kind)(f), arrays)
            results = self._kept[key](*arrays)
            if kind == "evaluated":
                return self.numpy(results)
            return tuple(map(self.numpy, results))

    def forget(self):
        """Forget what was compiled."""
        self._kept.clear()

    def signature(self, arrays):  # noqa: ARG002
        """What a compiled function depends on, beside itself."""
        return ()

    def compile(self, g, arrays):  # noqa: ARG002
        return g

    def context(self, double):  # noqa: ARG002
        return contextlib.nullcontext()

    def evaluated(self, f):
        return f

    def differentiated(self, f):
        def g(cotangent, *xs):
            return self.gradients(f, cotangent, xs)

        return g

    def differentiated_twice(self, f):
        def g(*arrays):
            half = len(arrays) // 2
            return self.products(f, arrays[:half], arrays[half:])

        return g

    def numpy(self, x):
        return np.asarray(x)


@lru_cache(maxsize=None, typed=True)
def _loss(framework, mu, scale):
    return partial(framework.module.eccentric_loss, mu=mu, scale=scale)


@cache
def _pair_sum(framework, kernel, **options):
    return partial(framework.module.pair_sum, kernel=kernel, **options)


class NumPy(Framework):
    """`eccentric_core` itself."""

    adapter = "eccentric_core"
    plain = True

    tensor = staticmethod(np.asarray)

    def array(self, values, dtype):
        return np.asarray(values).astype(dtype)

    def gradients(self, f, cotangent, xs):
        value, *gradients = getattr(eccentric_core, f.func.__name__ + "_and_grad")(*xs, **f.keywords)
        cotangent, gradients = self.numpy(cotangent), [self.numpy(g) for g in gradients]
        shape = cotangent.shape
        products = (np.reshape(cotangent, shape + (1,) * (g.ndim - len(shape))) * g for g in gradients)
        return value, *(product.astype(g.dtype) for product, g in zip(products, gradients, strict=True))

    def products(self, f, xs, us):
        if f.func is eccentric_core.pair_sum:
            return eccentric_core.pair_sum_hvp(*itertools.chain(*zip(xs, us, strict=True)), **f.keywords)
        (z,), (u,), mu = xs, us, f.keywords["mu"]
        n, scale = z.shape[-2], float(eccentric_core.kernel_scale(z.shape[-1], mu, method=f.keywords["scale"]))
        kernel = eccentric_core.LogarithmicKernel()
        (repulsion,) = eccentric_core.pair_sum_hvp(z, u, kernel=kernel, bandwidth=scale)
        return (2.0 / n * u - mu * scale / (n * (n - 1.0)) * repulsion,)


class ArrayApiStrict(NumPy):
    """Any other library that follows the array API standard, CuPy for instance."""

    def array(self, values, dtype):
        if dtype not in ("float32", "float64"):
            pytest.skip("the standard has no dtype of half precision")
        return self.tensor(np.asarray(values).astype(dtype))

    def tensor(self, value):
        return importlib.import_module("array_api_strict").asarray(value)


class Torch(Framework):
    adapter = "eccentric_torch"

    @property
    def torch(self):
        return importlib.import_module("torch")

    @property
    def device(self):
        return "cuda" if self.torch.cuda.is_available() else "cpu"

    def tensor(self, value):
        return self.torch.tensor(value, device=self.device)

    def array(self, values, dtype):
        return self.tensor(np.asarray(values, np.float64)).to(getattr(self.torch, dtype))

    def numpy(self, x):
        x = x.detach().cpu()
        if x.dtype == self.torch.bfloat16:
            return x.view(self.torch.int16).numpy().view(ml_dtypes.bfloat16)
        return x.numpy()

    def gradients(self, f, cotangent, xs):
        xs = [x.requires_grad_() for x in xs]
        value = f(*xs)
        return value, *self.torch.autograd.grad(value, xs, cotangent)

    def products(self, f, xs, us):
        xs = [x.requires_grad_() for x in xs]
        gradients = self.torch.autograd.grad(f(*xs), xs, create_graph=True)
        return self.torch.autograd.grad(gradients, xs, us)


class TorchCompiled(Torch):
    """The function is compiled and autograd is called outside, as in a training loop.

    The graphs are those that Inductor gets, run operation by operation.
    """

    compiled = True
    backend = "aot_eager"

    @contextlib.contextmanager
    def context(self, double):  # noqa: ARG002
        # Functions that differ in a constant share their code, and each is one more version of it.
        with self.torch._dynamo.config.patch(recompile_limit=1000), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's compiler warns of its own use of PyTorch
            yield

    def forget(self):
        super().forget()
        self.torch.compiler.reset()

    def evaluated(self, f):
        return self.torch.compile(f, fullgraph=True, dynamic=True, backend=self.backend)

    def differentiated(self, f):
        return super().differentiated(self.evaluated(f))


class TorchInductor(TorchCompiled):
    backend = "inductor"


class Jax(Framework):
    adapter = "eccentric_jax"
    compiles = True

    @property
    def jax(self):
        return importlib.import_module("jax")

    def context(self, double):
        """float64 where it is asked for, and nowhere else."""
        if not double:
            return contextlib.nullcontext()
        if hasattr(self.jax, "enable_x64"):
            return self.jax.enable_x64(True)
        return importlib.import_module("jax.experimental").enable_x64()  # JAX before 0.8

    def forget(self):
        super().forget()
        self.jax.clear_caches()

    def tensor(self, value):
        return self.jax.numpy.asarray(value)

    def array(self, values, dtype):
        return self.tensor(np.asarray(values).astype(dtype))

    def gradients(self, f, cotangent, xs):
        value, backward = self.jax.vjp(f, *xs)
        return value, *backward(cotangent)

    def products(self, f, xs, us):
        gradient = self.jax.grad(f, argnums=tuple(range(len(xs))))
        return self.jax.vjp(gradient, *xs)[1](us)


class JaxJit(Jax):
    compiled = True

    @contextlib.contextmanager
    def context(self, double):
        """And optimised as users have it, which the tests elsewhere do without."""
        before = self.jax.config.read("jax_disable_most_optimizations")
        self.jax.config.update("jax_disable_most_optimizations", False)
        try:
            with super().context(double):
                yield
        finally:
            self.jax.config.update("jax_disable_most_optimizations", before)

    def compile(self, g, arrays):  # noqa: ARG002
        return self.jax.jit(g)


class TensorFlow(Framework):
    adapter = "eccentric_tensorflow"
    compiles = True

    @property
    def tf(self):
        return importlib.import_module("tensorflow")

    def tensor(self, value):
        return self.tf.constant(value)

    def array(self, values, dtype):
        return self.tensor(np.asarray(values).astype(dtype))

    def gradients(self, f, cotangent, xs):
        with self.tf.GradientTape() as tape:
            tape.watch(xs)
            value = f(*xs)
        return value, *tape.gradient(value, xs, output_gradients=cotangent)

    def products(self, f, xs, us):
        with self.tf.GradientTape() as outer:
            outer.watch(xs)
            with self.tf.GradientTape() as inner:
                inner.watch(xs)
                value = f(*xs)
            gradients = inner.gradient(value, xs)
        return outer.gradient(gradients, xs, output_gradients=us)


class TensorFlowFunction(TensorFlow):
    compiled = True
    options: dict = {}  # noqa: RUF012

    def compile(self, g, arrays):  # noqa: ARG002
        return self.tf.function(g, **self.options)


class TensorFlowUnknown(TensorFlowFunction):
    """Every axis is unknown but the last of the rows: one graph for all sizes."""

    def signature(self, arrays):
        return tuple(self.tf.TensorSpec(self._known(x.shape), x.dtype) for x in arrays)

    def _known(self, shape):
        # A cotangent has the leading axes of rows.
        return [None] * len(shape) if len(shape) < 2 else [*[None] * (len(shape) - 1), shape[-1]]

    def compile(self, g, arrays):
        return self.tf.function(g).get_concrete_function(*self.signature(arrays))


class TensorFlowXla(TensorFlowFunction):
    options = {"jit_compile": True}  # noqa: RUF012


class Mlx(Framework):
    adapter = "eccentric_core"

    @property
    def mx(self):
        return importlib.import_module("mlx.core")

    def tensor(self, value):
        return self.mx.array(value)

    def array(self, values, dtype):
        kind = {"bool": "bool_"}.get(dtype, dtype)
        return self.mx.array(np.asarray(values).astype(np.float64), getattr(self.mx, kind))

    def numpy(self, x):
        if x.dtype == self.mx.bfloat16:
            return np.asarray(x.astype(self.mx.float32)).astype(ml_dtypes.bfloat16)
        return np.asarray(x)

    def gradients(self, f, cotangent, xs):
        values, gradients = self.mx.vjp(f, list(xs), [cotangent])
        return values[0], *gradients

    def products(self, f, xs, us):
        gradient = self.mx.grad(f, argnums=tuple(range(len(xs))))
        return self.mx.vjp(gradient, list(xs), list(us))[1]


class MlxCompiled(Mlx):
    compiled = True

    def compile(self, g, arrays):  # noqa: ARG002
        return self.mx.compile(g)


FRAMEWORKS = {
    "numpy": NumPy,
    "array-api-strict": ArrayApiStrict,
    "torch": Torch,
    "torch-compile": TorchCompiled,
    "torch-inductor": TorchInductor,
    "jax": Jax,
    "jax-jit": JaxJit,
    "tensorflow": TensorFlow,
    "tensorflow-function": TensorFlowFunction,
    "tensorflow-unknown": TensorFlowUnknown,
    "tensorflow-xla": TensorFlowXla,
    "mlx": Mlx,
    "mlx-compile": MlxCompiled,
}
PLAIN = tuple(name for name, kind in FRAMEWORKS.items() if kind.plain)
# These compile C++, which takes a second or two for each kernel: every function comes once (test_compilers.py).
COMPILERS = ("torch-inductor", "mlx-compile")
MODES = tuple(name for name in FRAMEWORKS if name not in COMPILERS)


def eager(*case):
    """A case for modes that compile nothing: another one beside it compiles to the same operations."""
    return pytest.param(*case, marks=pytest.mark.eager)
