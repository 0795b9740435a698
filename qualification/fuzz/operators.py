"""Lines that programs are made of: operators with places for values, sizes and numbers.

Places in braces: `f` is a value of floating-point numbers, `i` of integers, `r` of either, `b` of
booleans, `c` of complex numbers, `a` of any dtype; `{r2}` and `{r3}` broadcast with the first one,
`{r=}` has its shape and dtype. `d` is a dimension of the first value, `D` some, `P` all in another
order, `n` its size in dimension `d` as an expression, `n0` that in the first; `s` is a number, and
`t`, `ti`, `tf` are dtypes, of integers, of floating-point numbers. Whether a line means anything
for the shapes at hand is found out by running it.
"""

from __future__ import annotations

UNARY = """
torch.relu({f}) | torch.sigmoid({f}) | torch.tanh({f}) | F.gelu({f})
F.gelu({f}, approximate="tanh") | F.silu({f}) | F.mish({f}) | F.softplus({f}) | F.elu({f})
F.selu({f}) | F.celu({f}) | F.leaky_relu({f}, 0.1) | F.hardswish({f}) | F.hardsigmoid({f})
F.hardtanh({f}) | F.hardshrink({f}) | F.softshrink({f}) | F.tanhshrink({f}) | F.softsign({f})
F.logsigmoid({f}) | F.threshold({f}, 0.5, 2.0) | F.relu6({f}) | {f}.exp() | {f}.abs().log()
{f}.abs().sqrt() | {f}.sqrt() | {f}.rsqrt() | {f}.sin() | {f}.cos() | {f}.tan() | {f}.erf()
{f}.erfc() | {f}.tanh().erfinv() | {f}.lgamma() | {f}.digamma() | {f}.expm1() | {f}.log1p()
{f}.asin() | {f}.acos() | {f}.atan() | {f}.sinh() | {f}.cosh() | {f}.asinh() | {f}.acosh()
({f}.abs() + 1).acosh() | {f}.atanh() | {f}.reciprocal() | {f}.floor() | {f}.ceil() | {f}.round()
{f}.trunc() | {f}.frac() | {r}.sign() | {r}.sgn() | {r}.signbit() | {r}.isnan() | {f}.isinf()
{f}.isfinite() | torch.nan_to_num({f}) | {f}.nan_to_num(1.0, 2.0, -2.0) | {r}.square() | {r}.abs()
{r}.neg() | -{r} | +{r} | ~{i} | ~{b} | {b}.logical_not() | {r}.logical_not()
torch.special.ndtr({f}) | torch.special.log_ndtr({f}) | torch.special.entr({f})
torch.special.erfcx({f}) | torch.special.i0e({f}) | torch.special.i1({f})
torch.special.bessel_j0({f}) | torch.special.expit({r}) | torch.logit({f}, eps=1e-3)
torch.sinc({f}) | {f}.deg2rad() | {f}.exp2() | {f}.log2() | {f}.log10() | torch.i0({f})
torch.polygamma(1, {f}.abs() + 1) | {f}.round(decimals=1) | torch.frexp({f})[0]
torch.frexp({f})[1] | {r}.sqrt() | {r}.sin() | {r}.exp() | {r}.reciprocal() | {f}.sigmoid().logit()
{c}.abs() | {c}.angle() | {c}.real | {c}.imag | {c}.conj() | torch.view_as_real({c}) | {c}.exp()
{c} * {c2} | {c} + {r2} | torch.complex({f}.float(), {f2}.float()) | {r}.clamp(-1, 1)
{r}.clamp(min=0) | {r}.clamp(max=2) | {f}.clamp(-0.5, 0.25) | {r}.clip({r2}, {r2} + 1)
{r}.positive() | {f}.log_softmax({d}) | {f}.softmax({d}) | F.normalize({f}, dim={d})
F.softmin({f}, {d}) | F.glu({f}, {d}) | torch.cosine_similarity({f}, {f=}, dim={d})
F.rms_norm({f}, {f}.shape[-1:]) | F.layer_norm({f}, {f}.shape[-1:]) | F.instance_norm({f})
F.group_norm({f}, 2) | F.local_response_norm({f}, 2)
{f}.softmax({d}, dtype=torch.float64)
{f}.masked_fill({f} > -9e9, -torch.inf).softmax({d}).nan_to_num(5.0)
{f}.masked_fill({f} > 0, -torch.inf).softmax({d})
{f}.masked_fill({f} > 0, -torch.inf).logsumexp({d})
{f}.masked_fill({f} > -9e9, -torch.inf).log_softmax({d}).nan_to_num(5.0) | {c}.sqrt() | {c}.log()
{c}.sin()
{c}.reciprocal() | {c}.mH | {c}.square() | {c}.sgn() | {c} ** 2 | {c}.resolve_conj() * 2
torch.view_as_complex(torch.stack([{f}.float(), {f}.float() + 1], -1))
torch.fft.fft({f}.float(), dim={d}) | torch.polar({f}.float(), {f}.float())
torch.fft.irfft(torch.fft.rfft({f}.float())) | {i}.abs() | {i}.sign()
F.layer_norm({f}[..., :1], (1,)) | F.layer_norm({f}, {f}.shape[1:])
F.rms_norm({f}[..., :1], (1,))
F.batch_norm({f}, {f}.new_zeros({f}.shape[1]), {f}.new_ones({f}.shape[1]), training=False)
F.group_norm({f}, {f}.shape[1]) | F.instance_norm({f}[..., :2]) | F.relu({f}, inplace=False)
{i}.clamp(0, 100) | {f}.clamp(torch.zeros(()), None) | {f}.nan_to_num().int()
torch.clamp({i}, max=3.5) | {f}.logit()
"""

BINARY = """
{r} + {r2} | {r} - {r2} | {r} * {r2} | {r} / {r2} | {r} / ({r2}.abs() + 1) | {r} // ({i2} | 1)
{r} % ({i2} | 1) | {f} // {f2} | {f} % {f2} | torch.div({f}, {f2}, rounding_mode="floor")
torch.div({f}, {f2}, rounding_mode="trunc") | torch.div({i}, {i2} | 1, rounding_mode="trunc")
torch.div({i}, {i2} | 1, rounding_mode="floor") | torch.remainder({i}, {i2} | 1)
torch.fmod({i}, {i2} | 1) | torch.fmod({f}, {f2}) | torch.remainder({f}, {f2})
torch.floor_divide({i}, 3) | {r} // 3 | {r} % 3 | {r} % -3 | {f} // 0.3 | {f} % 0.3 | 1 / {f}
2 - {r} | 3 ** {f} | 2 // ({i} | 1) | 7 % ({i} | 1) | torch.fmod({r}, 3) | torch.fmod({f}, -0.7)
{r} ** 2 | {r} ** 3 | {f} ** 0.5 | {f} ** -0.5 | {f} ** -1 | {f} ** 1.5 | {r} ** 0 | {r} ** 1
{f}.abs() ** {f2} | {f} ** {f2} | {i} ** 2 | torch.float_power({r}, 2) | {f} ** ({i2} & 3)
torch.maximum({r}, {r2}) | torch.minimum({r}, {r2}) | torch.fmax({f}, {f2}) | torch.fmin({f}, {f2})
torch.atan2({f}, {f2}) | torch.copysign({f}, {f2}) | torch.hypot({f}, {f2})
torch.nextafter({f}, {f2}) | torch.logaddexp({f}, {f2}) | torch.logaddexp2({f}, {f2})
torch.xlogy({f}, {f2}) | torch.special.xlog1py({f}, {f2}) | torch.heaviside({r}, {r=})
torch.ldexp({f}, {i2} & 3) | torch.lerp({f}, {f=}, 0.3) | torch.lerp({f}, {f=}, {f=})
torch.addcmul({f}, {f=}, {f=}, value=0.5) | torch.addcdiv({f}, {f=}, {f=}.abs() + 1) | {r} > {r2}
{r} >= {r2} | {r} < {r2} | {r} <= {r2} | {r} == {r2} | {r} != {r2} | {r} > {s} | {r} == 0
{r}.isclose({r=}) | torch.isin({i}, {i2}) | {b} & {b2} | ({b} | {b2}) | {b} ^ {b2} | {i} & {i2}
({i} | {i2}) | {i} ^ {i2} | {i} << ({i2} & 3) | {i} >> ({i2} & 3) | {i} >> 1 | {i} << 2
{b}.logical_and({r2}) | torch.logical_xor({r}, {r2}) | torch.gcd({i}, {i2})
torch.lcm({i} & 7, {i2} & 7) | torch.where({b}, {r2}, {r3}) | torch.where({r} > 0, {r2}, {s})
torch.where({b}, {s}, {s}) | torch.where({r} > {r2}, {r}, {r2}) | {r}.masked_fill({b2}, {s})
torch.where({b}, {r2}, 0) | {r}.masked_fill({r} < 0, 0) | {r} + {s} | {r} - {s} | {r} * {s}
{f} / {s} | {r} + {n} | {r} * {n} | {f} / ({n} + 1) | {r} + {n} // 2 | {r} * ({n} % 3)
{r}.add({r2}, alpha=2) | {r}.sub({r2}, alpha=3) | torch.rsub({r}, {r2}) | {r} * ({n} > 3)
({r} + 1) if {n} > 4 else ({r} * 2) | {r} if {n} % 2 == 0 else {r}.neg() | {r} * max({n}, 3)
{r} + min({n}, 5) | {r} - float({n}) | {r} * ({n} ** 2) | {r} * ({n} == 1)
torch.special.zeta({f}.abs() + 2, {f2}.abs() + 1) | torch.dist({f}, {f=}) | torch.cdist({f}, {f=})
F.mse_loss({f}, {f=}) | F.smooth_l1_loss({f}, {f=}, reduction="none") | F.huber_loss({f}, {f=})
F.pairwise_distance({f}, {f=}) | F.prelu({f}, {f}.new_full((1,), 0.2))
torch.cross({f}, {f=}, dim={d})
{c} / {c2} | {c} - {c2}.conj() | {c} == {c2} | {b} + {b2} | {b} * {b2} | {b} + 1 | {b} * 0.5
{b} / 2 | {b} * {r2} | {r} - {b2} | {b} < {b2} | {b} == {b2}
{b} // {b2}.logical_or({b}.logical_not()) | {b} ** 2 | 1 - {b}.int() | {b}.logical_xor({b2})
torch.maximum({b}, {b2}) | {i} << ({i2} & 63) | {i} >> ({i2} & 63) | {i} << {i2} | {i} >> {i2}
1 << {i} | 5 >> {i} | {i} // -3 | {i} % -7 | {i} // torch.where({i2} == 0, 1, {i2})
{i} % torch.where({i2} == 0, 1, {i2}) | -7 // ({i} | 1)
torch.fmod({i}, torch.where({i2} == 0, 1, {i2})) | -7 % ({i} | 1) | {i} * {i2} * 3
{i} / ({i2} | 1) | torch.div({i}, -4, rounding_mode="trunc")
torch.div({i}, 2.5, rounding_mode="floor") | {i} ** ({i2} & 7) | {i} ** 3 | 2 ** ({i} & 7)
{i} & 5 | {i} ^ -1 | ({i} | 8) | {i} == 2.5 | {i} > 1.5 | {i} + 0.5 | {i} * 1e10 | {i} // 0.5
{i} % 1.5 | torch.where({b}, {s}, {r2}) | torch.where({b}, {r2}, {s}) | torch.where({r} > 0, 1, 0)
torch.where({b}, 1.0, {i2}) | torch.where({b}, torch.tensor(2), {r2})
torch.where({b}, -torch.inf, 0.0).exp() | {r} + torch.tensor(2.5)
{r} * torch.tensor(3, dtype=torch.int32) | {r} + torch.tensor([1.5], dtype=torch.float64)
{r} / {n} ** 0.5 | {r} + int({n} * 0.5) | {r} + ({n} + 3) // 4 * 4 | {r} + -{n} % 4
{r} + {n} // -2 | {r} * bool({n} & 1) | {r} + ({n} << 1) | {r} + ({n} if {n} > 2 else -{n})
{r} + round({n} / 3) | {r} * (0 if {n} < 2 else 1) | {r} + {n} % 3 * 2
F.binary_cross_entropy_with_logits({f}, {f=}.sigmoid()) | F.l1_loss({f}, {f=})
F.kl_div({f}, {f=}, reduction="sum")
F.cosine_embedding_loss({f}, {f=}, torch.ones({f}.shape[0]))
F.cross_entropy({f}, {f=}.softmax(1))
torch.cond({r}.sum() > 0, lambda x: x + 1, lambda x: x * 2, ({r},))
torch.cond({n} > 3, lambda x: x.neg(), lambda x: x * 2, ({r},))
torch.cond(({f} > {f2}).any(), lambda x, y: x.sin() + y, lambda x, y: x - y, ({f}, {f2}))
"""

CASTS = """
{i}.to({t}) | {b}.to({t}) | {r}.to({tf}) | {r}.float() | {r}.double() | {f}.half() | {f}.bfloat16()
{r}.bool() | {f}.nan_to_num(0.0, 50.0, -50.0).clamp(-100, 100).to({ti})
{f}.nan_to_num(0.0, 9.0, 0.0).clamp(0, 200).byte() | {i}.to({ti}) | {b}.long() | {r}.type_as({r2})
{f}.bfloat16().float() | {f}.half().float() | {f}.half().bfloat16()
{f}.float().nan_to_num().view(torch.int32)
{f}.nan_to_num(0.0, 50.0, -50.0).clamp(-100, 100).int().float() | {i}.float() | {i}.to({tf})
{r}.to({tf})
{b}.to({tf}) | {r}.to(torch.complex64) | {f}.to(torch.int32, copy=True) * 0 | {b}.byte() + 255
{i}.to(torch.uint8) | {i}.to(torch.int8) | {i}.short() | {i}.to(torch.float16) | {i}.bool().int()
{i}.double() | {f}.double().float() | {f}.to(torch.float8_e4m3fn).float() | {i}.to({i2}.dtype)
{f}.bool()
"""

REDUCTIONS = """
{r}.sum() | {r}.sum({d}) | {r}.sum({d}, keepdim=True) | {r}.sum({D}) | {f}.mean() | {f}.mean({d})
{f}.mean({D}, keepdim=True) | {r}.amax({d}) | {r}.amin({d}, keepdim=True) | {r}.amax()
{r}.amin({D}) | {r}.argmax({d}) | {r}.argmin({d}, keepdim=True) | {r}.argmax() | {r}.max({d})[0]
{r}.min({d})[1] | {r}.max() | {r}.aminmax(dim={d})[1] | {a}.any({d}) | {a}.all({d}) | {r}.any()
{r}.all({d}, keepdim=True) | {r}.prod({d}) | {r}.prod() | {f}.var({d})
{f}.var({d}, correction=0, keepdim=True) | {f}.std({d}) | torch.var_mean({f}, {d})[1]
torch.std_mean({f}, {D})[0] | {f}.logsumexp({d}) | {r}.cumsum({d}) | {r}.cumprod({d})
{r}.cummax({d})[0] | {r}.cummin({d})[1] | {f}.logcumsumexp({d}) | {r}.diff(dim={d})
{f}.norm(dim={d}) | torch.linalg.vector_norm({f}, 1, {d})
torch.linalg.vector_norm({f}, float("inf"), {d}) | torch.linalg.vector_norm({f}, 3)
{f}.nansum({d}) | {f}.nanmean({d}) | {r}.count_nonzero({d}) | {r}.sum({d}, dtype=torch.float64)
{b}.sum({d}) | {b}.float().mean({d}) | {r}.sum({d}, dtype=torch.int64)
{r}.sort(dim={d}, stable=True)[0] | {r}.sort(dim={d}, descending=True, stable=True)[1]
{r}.topk(1, {d})[0] | {r}.median({d})[0] | {r}.kthvalue(1, {d})[0]
{r}.argsort(dim={d}, stable=True)
{r}.msort() | {f}.quantile(0.3, {d}) | torch.trapezoid({f}, dim={d})
torch.cumulative_trapezoid({f}, dim={d}) | {r}.unique_consecutive()[:0] | {r}.mode({d})[0]
torch.bucketize({f}, torch.tensor([-1.0, 0.0, 0.5]))
torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), {f}.float().contiguous())
{r}.renorm(2, 0, 1.0) | torch.histc({f}.float(), 4, -2, 2)
torch.bincount({i}.flatten().abs() & 3, minlength=4) | {r}.to(torch.int64).sum({d})
{r}.amax({d}, keepdim=True) - {r} | {f} - {f}.mean({d}, keepdim=True)
{f} / ({f}.norm(dim={d}, keepdim=True) + 1e-6) | {r} == {r}.amax({d}, keepdim=True)
{r}.cummax({d})[1] | {r}.cummin({d})[0] | {b}.cumsum({d}) | {r}.cumsum({d}, dtype=torch.float64)
{r}.flip({d}).cumsum({d}).flip({d}) | {i}.cumprod({d}) | {i}.cumsum({d})
{f}.cumsum({d}).diff(dim={d}) | {r}.sort({d})[0] | {r}.sort({d}, descending=True)[0]
{r}.topk(min({n}, 2), {d})[0] | {f}.topk(1, {d}, largest=False)[0]
{r}.argsort(dim={d}, descending=True, stable=True) | {r}.topk({n} // 2, {d})[0]
{b}.argsort(dim={d}, stable=True) | {b}.sort(dim={d}, stable=True)[1]
{i}.argsort(dim={d}, stable=True).argsort(dim={d}, stable=True) | {c}.sum({d}) | {c}.mean({d})
{c}.prod({d}) | {c}.cumsum({d}) | {c}.abs().amax({d}) | {c}.norm(dim={d}) | {b}.any()
{b}.prod({d}) | {b}.amax({d}) | {b}.cummax({d})[0] | {b}.sum({d}) > {n} // 2 | {b}.all({D})
{r}[{r} > 0].sum() | {r}[{b}].sum() | {r}.masked_select({r} > 0) | {r}.nonzero() | {i}.unique()
{f}.sum({d}, dtype=torch.float64).float() | {f}.mean({d}, dtype=torch.float64) | {f}.median()
{f}.nanmedian() | {f}.std(correction=0) | {f}.var({D}, correction=1)
{f}.std({d}, keepdim=True, correction=0)
({f} - {f}.mean({d}, keepdim=True)) / ({f}.std({d}, keepdim=True, correction=0) + 1e-5)
{f}.logsumexp({D}) | torch.linalg.vector_norm({f}, 0, {d})
torch.linalg.vector_norm({f}, float("-inf"), {d}) | {f}.norm(p=1) | torch.linalg.matrix_norm({f})
{r}.amax({d}).cumsum(0) | {r}.argmax({d}) + {n} | {f}.softmax({d}).argmax({d})
F.one_hot({r}.argmax({d}), {n}) | torch.cov({f}) | {f}.aminmax()[0]
{i}.sum({d}, dtype=torch.int32)
"""

PRODUCTS = """
{f} @ {f=}.mT | {f}.mT @ {f=} | torch.matmul({f}, {f=}.transpose(-1, -2)) | torch.bmm({f}, {f=}.mT)
torch.einsum("...ij,...kj->...ik", {f}, {f=}) | torch.einsum("...ij,...ij->...i", {f}, {f=})
torch.einsum("...i,...j->...ij", {f}, {f=}) | torch.outer({f}.flatten()[:5], {f=}.flatten()[:7])
torch.mv({f}, {f}[0]) | torch.dot({f}.flatten(), {f=}.flatten())
torch.addmm({f}[:, :1], {f}, {f=}.T) | torch.addmm({f}[0, 0], {f}, {f=}.T, beta=0.5, alpha=2)
torch.baddbmm({f}[..., :1], {f}, {f=}.mT, alpha=0.3) | torch.addmv({f}[:, 0], {f}, {f}[0])
{i} @ {i=}.mT | {f}.mT @ {f} | torch.kron({f}, {f}[:2, :2]) | torch.tensordot({f}, {f=}, dims=1)
torch.linalg.multi_dot([{f}, {f=}.T, {f=}]) | torch.chain_matmul({f}, {f=}.T)
F.scaled_dot_product_attention({f}, {f=}, {f=})
F.scaled_dot_product_attention({f}, {f=}, {f=}, is_causal=True)
F.scaled_dot_product_attention({f}, {f}, {f=}, attn_mask=({f} @ {f}.mT) > -1)
F.scaled_dot_product_attention({f}[:, None], {f}[:, None], {f}[:, None], scale=0.2)
F.scaled_dot_product_attention({f}, {f=}, {f=}, attn_mask={f} @ {f=}.mT)
F.scaled_dot_product_attention({f}[None, None], {f}[None, None], {f}[None, None], is_causal=True)
F.scaled_dot_product_attention(*3 * ({f}.unflatten(-1, (2, -1)).transpose(-2, -3),))
{f}.tril() | {f}.triu(1) | {r}.diagonal() | {r}.trace() | torch.diag_embed({r})
torch.tril({r}, -1) | {r}.diag() | torch.vander({r}, 3)
torch.einsum("ij,kj->ik", {f}, {f=}) | torch.einsum("bij,bkj->bik", {f}, {f=})
torch.einsum("ij->ji", {r}) | torch.einsum("...i->...", {f}) | torch.einsum("ij,ij->", {f}, {f=})
torch.einsum("...ij->...ji", {r}) | torch.einsum("bij,bij->b", {f}, {f=})
torch.einsum("i...,i...->...", {f}, {f=}) | {c} @ {c=}.mT
torch.einsum("...ij,...kj,...kl->...il", {f}, {f=}, {f=}) | torch.inner({f}, {f=})
{f}.flatten() @ {f=}.flatten() | {f} @ {f}[..., 0, :, None]
{f}.unsqueeze(-2) @ {f=}.unsqueeze(-1) | torch.addbmm({f}[0][:, :1], {f}, {f=}.mT)
{f}.mT[..., :1] @ {f=}[..., :1, :] | {f}.expand(2, *{f}.shape) @ {f=}.mT | {i}.mT @ {i=}
{f}[..., :0] @ {f=}[..., :0].mT | {f}.float() @ {f=}.float().mT
torch.linalg.matrix_power({f} @ {f=}.mT, 2)
F.linear({f}, {f}[..., 0, :].reshape(-1, {f}.shape[-1]))
F.linear({f}, {f}.new_ones(2, {f}.shape[-1]), {f}.new_ones(2))
F.scaled_dot_product_attention({f}[:, None], {f=}[:, None], {f=}[:, None], is_causal=True)
F.scaled_dot_product_attention({f}, {f=}, {f=}, attn_mask={f}[..., :1] > 1e9)
"""

VIEWS = """
{a}.flatten() | {a}.reshape(-1) | {a}.view(-1) | {a}.reshape({n}, -1) | {a}.view(-1, {a}.shape[-1])
{a}.mT | {a}.transpose(0, -1) | {a}.permute({P}) | {a}.unsqueeze({d}) | {a}.unsqueeze(-1)
{a}.squeeze({d}) | {a}[None] | {a}[..., None] | {a}.expand(2, *{a}.shape) | {a}[1:] | {a}[:-1]
{a}[::2] | {a}[..., 1:] | {a}[..., ::2] | {a}[..., :3] | {a}[-1] | {a}[0] | {a}[..., 0]
{a}[..., -1] | {a}[{n0} // 2:] | {a}[:{n0} // 2] | {a}.flip({d}) | {a}.flip({d})[..., ::2]
{a}.narrow({d}, 0, 1) | {a}.select({d}, -1) | {a}[..., -2:] | {a}[:, 1:] | {a}[:, :-1]
{a}.unfold({d}, 2, 1) | {a}.unfold({d}, 3, 2) | {a}.chunk(2, {d})[0] | {a}.chunk(3, {d})[-1]
{a}.split(2, {d})[0] | {a}.tensor_split(2, {d})[1] | {a}.unbind({d})[0] | {a}.movedim(0, -1)
{a}.swapaxes(0, -1) | {a}.ravel() | {a}.contiguous() | {a}.clone() | {a}.as_strided((2, 2), (1, 1))
{a}.unflatten({d}, (-1, 2)) | {a}.unflatten({d}, (2, -1)) | {a}.rot90(1, (0, 1)) | {a}.detach()
torch.atleast_2d({a}) | {a}.view_as({a=}) | {a}.expand_as({a=}) | {a}.broadcast_to(3, *{a}.shape)
{a}[..., :1].expand({a}.shape) | {a}[:1].expand_as({a}) | {a}.unsqueeze({d}).expand_as({a=}[None])
{a}.T | {a}.squeeze() | {a}.flatten(0, 1) | {a}.flatten(-2) | {a}.reshape({a}.shape[0], -1)
{a}[..., None, :] | {a}[0, ..., 0] | {a}[:{n0} - 1] | {a}[{n0} - 1:] | {a}[-{n0} // 2:]
{a}[:max(1, {n0} // 3)] | {a}[-2:] | {a}[::max(1, {n0} // 2)] | {a}[1:-1] | {a}[..., 1:-1]
{a}[1::2] | {a}[..., 1::2] | {a}[{n0} // 2:{n0} // 2 + 1] | {a}.unfold({d}, 2, 2).sum(-1)
{a}.unfold(0, {n0} // 2 + 1, 1) | {a}.view(*{a}.shape[:-1], 1, -1) | {a}.split(3, {d})[-1]
{a}.chunk({n} // 2 + 1, {d})[-1] | {a}.tensor_split((1,), {d})[1] | {a}.select(0, -1)[..., None]
{a}.narrow({d}, {n} // 2, {n} - {n} // 2) | {a}.narrow({d}, {n} - 1, 1) | {a}.hsplit(1)[0]
{a}.diagonal(0, 0, -1) | {a}.view({a}.shape[0], -1) | {a}.contiguous().view(-1)
{a}.mT.contiguous() | {a}.mT.reshape({a}.shape) | {a}.new_empty(0)
{a}.as_strided({a}.shape, {a}.stride()) | {a}.unsqueeze(0).squeeze(0)
{a}.flip(0, -1)
{a}.contiguous().view(torch.uint8) | {a}.clone(memory_format=torch.contiguous_format) | {a}[...]
"""

JOINS = """
torch.cat([{a}, {a=}], {d}) | torch.cat([{a}, {a=}, {a}], -1) | torch.stack([{a}, {a=}], {d})
torch.stack([{a}, {a=}], -1) | torch.cat([{a}[1:], {a}[:1]]) | torch.cat([{a}, {a=} * 2], {d})
torch.hstack([{a}, {a=}]) | torch.cat([{r}, {r2}], {d})
torch.cat([c * 2 for c in {r}.chunk(2, {d})], {d})
torch.cat([c.flip(0) for c in {r}.split(2, {d})], {d}) | sum({r}.unbind({d})) | F.pad({r}, (1, 2))
F.pad({r}, (1, 1), value=2.0) | F.pad({f}, (1, 1), mode="reflect")
F.pad({f}, (1, 2), mode="replicate") | F.pad({f}, (1, 1), mode="circular") | F.pad({r}, (-1, 1))
F.pad({r}, (0, 0, 1, 0)) | F.pad({f}, (1, 0, 0, 1), mode="reflect")
F.pad({f}, (2, 0, 1, 1), mode="replicate") | F.pad({r}, (0, -1, 2, -1)) | {a}.roll(1, {d})
{a}.roll(-2, -1) | {a}.roll(3) | {a}.repeat(2, *[1] * ({a}.ndim - 1)) | {a}.tile(2)
{a}.repeat_interleave(2, {d}) | torch.block_diag({r})
torch.cartesian_prod({r}.flatten()[:3], {r}.flatten()[:2])
torch.meshgrid({r}.flatten()[:3], {r}.flatten()[:4], indexing="ij")[0]
torch.stack([c + i for i, c in enumerate({r}.unbind({d}))], {d})
torch.stack([{r}[i] for i in range({n0})][::-1])
torch.cat([c * (i + 1) for i, c in enumerate({r}.chunk(3, {d}))], {d})
torch.cat({r}.tensor_split(3, {d})[::-1], {d})
torch.cat({r}.split([1, {n} - 1], {d})[::-1], {d}) | sum(c.sum() for c in {r}.split(2, {d}))
F.pad({r}, (0, -{r}.shape[-1] % 4))
torch.cat([c.cumsum({d}) for c in {r}.split({n} // 2 + 1, {d})], {d})
torch.stack({r}.unbind({d})[::2] or [{r}[0]])
torch.cat([c.softmax(-1) for c in {f}.unbind({d})], -1)
torch.cat([{a}.narrow({d}, i, 1) for i in range({n})], {d})
F.pad({r}, (0, 8 - {r}.shape[-1] % 8), value=-1) | F.pad({f}, (1, 1, 1, 1), mode="reflect")
F.pad({f}, (1, 1), value=-torch.inf) | F.pad({f}, (1, 0, 2, 1), mode="replicate")
F.pad({f}, (0, 1, 1, 0), mode="circular") | F.pad({a}, (0, 1, 0, 1, 1, 0))
F.pad({f}, (-1, 2), mode="replicate") | F.pad({f}, ({f}.shape[-1] - 1, 0), mode="reflect")
F.pad({b}, (1, 1), value=True)
torch.cat([{f}, {i}.to({f}.dtype)], {d}) if {i}.shape == {f}.shape else {f}
torch.cat([{i}, {f}], -1) if {i}.shape == {f}.shape else {i} | torch.cat([{a}[:0], {a}], 0)
torch.cat([{a}], {d}) | torch.vstack([{a}, {a=}]) | torch.dstack([{a}, {a=}])
torch.column_stack([{a}, {a=}]) | nn.utils.rnn.pad_sequence(list({r}.unbind(0)), batch_first=True)
{a}.roll({n} // 2, {d}) | {a}.roll((1, -1), (0, -1))
{a}.repeat(2, *{a}.shape[1:]) if {a}.numel() < 60 else {a}
{r}.repeat_interleave(torch.arange({n}) % 3, {d})
"""

MADE = """
torch.arange({n}) | torch.arange({n}, dtype=torch.float32) | torch.arange(0, {n} * 2, 2)
torch.zeros({n}, 3) | torch.ones({n}) * {n} | torch.full(({n},), 0.5) | torch.zeros_like({a})
torch.ones_like({r}, dtype={t}) | torch.full_like({r}, 2) | torch.linspace(0, 1, {n})
torch.eye({n}) | {r}.new_zeros({n}, 2) | torch.tril(torch.ones({n}, {n}, dtype=torch.bool))
torch.arange({n})[None] <= torch.arange({n})[:, None] | torch.tensor([1.0, -2.0])
torch.scalar_tensor({n}) | torch.arange({n} - 1, -1, -1) | torch.arange({n}).float() / {n}
{a}.new_ones({a}.shape) | torch.empty_like({r}).fill_(3)
torch.arange({n}, 0, -1) | torch.arange({n} // 2, {n}) | torch.full(({n},), {n})
torch.tensor({n}) | torch.tensor([{n}, 1]) | torch.arange(0, 1, 0.1)
torch.zeros({n}, {n}).fill_diagonal_(1) | torch.arange(0.5, {n}, 1.5)
torch.linspace(-1, 1, {n} + 1)[:-1] | torch.triu_indices({n}, {n})
torch.full(({n}, {n}), -torch.inf).triu(1) | torch.logspace(0, 1, {n}) | torch.empty(0, {n})
torch.hann_window({n}) | torch.ones({n}, 2, dtype={ti}).cumsum(0)
"""

INDEXING = """
{a}.gather({d}, torch.zeros_like({a}, dtype=torch.int64))
{r}.gather({d}, {r=}.argsort(dim={d}, stable=True))
{a}.index_select({d}, torch.arange({n}).flip(0))
{a}.index_select({d}, torch.tensor([0, -1]) % {n}) | {a}[torch.tensor([0, 0])]
{a}[torch.arange({n0}) // 2] | {a}[:, torch.tensor([0])] | {a}[..., torch.tensor([-1, 0])]
{a}.take_along_dim(torch.zeros_like({a}, dtype=torch.int64), {d}) | {a}.take(torch.tensor([0]))
{r}.scatter({d}, torch.zeros_like({r}, dtype=torch.int64)[:1], {r=})
{r}.scatter_add({d}, torch.zeros_like({r}, dtype=torch.int64), {r=})
{r}.scatter_reduce({d}, torch.zeros_like({r}, dtype=torch.int64), {r=}, "amax")
{r}.scatter_reduce({d}, ({i=} & 1), {r}, "amin", include_self=False)
{r}.scatter({d}, torch.zeros_like({r}, dtype=torch.int64), 2)
{r}.scatter_reduce({d}, torch.zeros_like({r}, dtype=torch.int64), {r=}, "prod")
{f}.scatter_reduce({d}, torch.zeros_like({f}, dtype=torch.int64), {f=}, "mean")
{r}.index_add({d}, torch.arange({n}).flip(0), {r=})
{r}.index_add({d}, torch.arange({n}) // 2, {r=}, alpha=2)
{r}.index_copy({d}, torch.arange({n}).flip(0), {r=}) | {a}.index_fill({d}, torch.tensor([0]), 1)
{r}.index_put((torch.tensor([0]),), {r}[-1:])
{r}.index_put((torch.arange({n0}) // 2,), {r=}, accumulate=True)
{r}.index_reduce({d}, torch.arange({n}).flip(0), {r=}, "amax") | {r}.masked_scatter({b2}, {r=})
{r}.slice_scatter({r}[1:] * 2, 0, 1) | {r}.select_scatter({r}[0] * 3, 0, -1)
{r}.diagonal_scatter({r}.diagonal() * 2) | {r}.put(torch.tensor([0]), {r}.flatten()[:1])
torch.take_along_dim({r}, {r}.argmax({d}, keepdim=True), {d}) | F.one_hot({i}.long() & 3, 4)
{r}[({i}.flatten().long() % {n0})] | {r}[..., ({i}.flatten().long() % {r}.shape[-1])]
{r}[{i}.flatten().long() % {n0}, ..., 0] | F.embedding({i}.long() & 3, {f}.new_ones(4, 3).cumsum(0))
torch.tril_indices({n}, {n})
{a}[[0, -1]] | {a}[torch.arange({n0}) % 2 == 0]
{r}[torch.arange({n0})[:, None], torch.tensor([0])]
{r}.gather({d}, {r=}.argmax({d}, keepdim=True))
{r}.scatter({d}, {r=}.argsort(dim={d}, stable=True), {r=})
{r}.scatter_add({d}, {i=}.long() % {n}, {r=})
{r}.scatter_reduce({d}, {i=}.long() % {n}, {r=}, "sum")
{r}.scatter_reduce({d}, {i=}.long() % {n}, {r=}, "amax", include_self=False)
{r}.gather({d}, {i=}.long() % {n})
{r}.index_put(({i}.flatten().long() % {n0},), {r}[:1], accumulate=True)
{f}.scatter_reduce({d}, {i=}.long() % {n}, {f=}, "mean", include_self=False)
{r}.index_put((torch.tensor([0]), torch.tensor([-1])), {r}.new_ones(()), accumulate=True)
{r}.index_put(({r} > 0,), {r}.new_zeros(()))
{r}.new_zeros({r}.shape).index_add(0, {i}.flatten().long() % {n0}, {r}[{i}.flatten() * 0])
{r}.index_fill({d}, torch.arange({n} // 2), 7) | {r}.index_select({d}, torch.arange({n} - 1))
{r}[:, [0]] | {r}.slice_scatter({r}[..., ::2] * 2, -1, step=2)
{r}.slice_scatter({r}[:1], 0, {n0} - 1) | {r}[None, :, None][..., 0]
{r}.take({i}.flatten().long() % {r}.numel()) | {r}.flatten()[{r}.flatten().argsort(stable=True)]
{r}[-1, ..., [0]]
{r}.index_reduce({d}, torch.arange({n}) // 2, {r=}, "prod", include_self=False)
{r}.masked_scatter({r} > 0, {r} * 2) | F.embedding_bag({i}.long() & 1, {f}.new_ones(2, 3).cumsum(0))
{r}[torch.tensor(0)] | {r}[{r}.shape[0] - 1] | {r}[..., {i}.sum() % 1]
"""

IMAGES = """
F.max_pool1d({f}, 2) | F.max_pool1d({f}, 3, stride=1, padding=1)
F.avg_pool1d({f}, 2, ceil_mode=True)
F.avg_pool1d({f}, 3, stride=2, padding=1, count_include_pad=False) | F.max_pool2d({f}, 2)
F.max_pool2d({f}, 3, 1, 1) | F.max_pool2d({f}, 2, ceil_mode=True) | F.avg_pool2d({f}, 2)
F.avg_pool2d({f}, 3, 1, 1, count_include_pad=False) | F.avg_pool2d({f}, 3, 2, 1, ceil_mode=True)
F.adaptive_avg_pool1d({f}, 3) | F.adaptive_avg_pool2d({f}, 2) | F.adaptive_max_pool2d({f}, 2)
F.adaptive_max_pool1d({f}, 1) | F.lp_pool1d({f}, 2, 2)
F.max_pool2d({f}, 2, return_indices=True)[1] | F.interpolate({f}, scale_factor=2)
F.interpolate({f}, scale_factor=2, mode="bilinear")
F.interpolate({f}, size=5, mode="linear", align_corners=True)
F.interpolate({f}, size=(3, 5), mode="bicubic")
F.interpolate({f}, scale_factor=1.5, mode="nearest-exact")
F.interpolate({f}, size=7, mode="nearest")
F.interpolate({f}, size=(4, 4), mode="bilinear", antialias=True)
F.interpolate({f}, scale_factor=0.5, mode="area") | F.pixel_shuffle({f}, 2)
F.pixel_unshuffle({f}, 2) | F.unfold({f}, 2) | F.fold({f}, (2, 2), 2) | F.channel_shuffle({f}, 2)
F.conv1d({f}, {f}.new_ones(2, {f}.shape[-2], 2))
F.conv2d({f}, {f}.new_ones(1, {f}.shape[-3], 2, 2) * 0.3, padding=1)
F.grid_sample({f}[:, :, :2, :2], {f}.new_zeros({f}.shape[0], 2, 2, 2), align_corners=False)
{f}.contiguous(memory_format=torch.channels_last) | {f}.to(memory_format=torch.channels_last) * 2
F.max_pool1d({f}, 2, ceil_mode=True) | F.max_pool1d({f}, 2, dilation=2)
F.avg_pool1d({f}, 3, stride=2, ceil_mode=True) | F.max_pool2d({f}, 3, 2, 1, ceil_mode=True)
F.avg_pool2d({f}, 2, ceil_mode=True, count_include_pad=False)
F.max_pool2d({f}, 2, 1, dilation=2) | F.avg_pool2d({f}, (2, 1), divisor_override=3)
F.avg_pool2d({f}, 3, 2, 1, ceil_mode=True, count_include_pad=False)
F.max_pool3d({f}[None], 2, ceil_mode=True) | F.avg_pool3d({f}[None], 2, ceil_mode=True)
F.adaptive_avg_pool2d({f}, (None, 3)) | F.adaptive_avg_pool1d({f}, 1)
F.adaptive_avg_pool2d({f}, (1, 1)) | F.adaptive_avg_pool3d({f}, 2)
F.lp_pool2d({f}, 2, 2, ceil_mode=True) | F.interpolate({f}, scale_factor=2, mode="linear")
F.interpolate({f}, scale_factor=0.5, mode="linear", align_corners=False)
F.interpolate({f}, scale_factor=(1.5, 2), mode="bilinear", align_corners=True)
F.interpolate({f}, scale_factor=2, mode="bicubic")
F.interpolate({f}, scale_factor=0.7, mode="bicubic", align_corners=True)
F.interpolate({f}, scale_factor=2, mode="trilinear")
F.interpolate({f}, scale_factor=0.7, mode="nearest")
F.interpolate({f}, scale_factor=(2, 0.5), mode="nearest-exact")
F.interpolate({f}, size=(5, 2), mode="area") | F.interpolate({f}, size=3, mode="area")
F.interpolate({f}, size=(6, 3), mode="nearest-exact")
F.interpolate({f}, scale_factor=0.5, mode="bicubic", antialias=True)
F.interpolate({f}, size={f}.shape[-1] * 2 - 1, mode="nearest")
F.interpolate({f}, scale_factor=1.5, recompute_scale_factor=True, mode="bilinear")
F.interpolate({f}, size=(4, 3, 2), mode="trilinear", align_corners=True)
F.interpolate({f}, size=({f}.shape[-2] // 2 + 1, 3), mode="bilinear")
F.interpolate({f}, size={f}.shape[2:], mode="bilinear")
F.max_unpool1d(*F.max_pool1d({f}, 2, return_indices=True), 2)
F.fold(F.unfold({f}, 2, padding=1), {f}.shape[-2:], 2, padding=1)
F.affine_grid({f}.new_ones({f}.shape[0], 2, 3), [{f}.shape[0], 1, 2, 3], align_corners=False)
F.unfold({f}, (2, 1), stride=2)
F.grid_sample({f}, {f}.new_ones({f}.shape[0], 2, 2, 2), "nearest", "border", True)
F.grid_sample({f}, {f}.new_ones({f}.shape[0], 2, 2, 2) * 2, "bicubic", "reflection", False)
F.conv1d({f}, {f}.new_ones({f}.shape[-2], 1, 2), groups={f}.shape[-2])
F.conv_transpose1d({f}, {f}.new_ones({f}.shape[-2], 1, 2), stride=2)
F.conv2d({f}, {f}.new_ones(2, {f}.shape[-3], 1, 1), stride=2)
F.conv1d({f}, {f}.new_ones(1, {f}.shape[-2], 3), padding="same")
"""

IN_PLACE = """
{r}.add_(1) | {r}.mul_({r2}) | {f}.relu_() | {r}.neg_() | {r}[1:].mul_(2) | {r}[..., 0].add_(1)
{r}[:1].copy_({r}[-1:]) | {r}[1:].copy_({r}[:-1].clone()) | {r}[..., ::2] *= 3
{r}[0] = {r}[-1] * 2 | {r}[:, 0] = 1 | {r}[..., -1] += {r}[..., 0] | {r}.zero_() | {r}.fill_(2)
{r}.flatten()[:2].zero_() | {r}.mT.add_(1) | {r}.T[0].sub_(1) | {r}.view(-1)[0].add_(2)
{r}.clamp_(min=0) | {r} += {r2} | {r} *= 2 | {r} -= {r2} | {r}.copy_({r2})
{r}.masked_fill_({r} > 0, 0) | {r}[{r} > 1] = 0 | {r}.index_add_({d}, torch.arange({n}), {r=})
{r}.index_fill_({d}, torch.tensor([0]), 3) | {r}.index_copy_({d}, torch.arange({n}).flip(0), {r=})
{r}.scatter_({d}, torch.zeros_like({r}, dtype=torch.int64), 1)
{r}.scatter_add_({d}, torch.zeros_like({r}, dtype=torch.int64), {r=})
{r}[torch.tensor([0])] = {r}[-1:]
{r}.index_put_((torch.tensor([0, 0]),), {r}[:1].clone(), accumulate=True)
{r}.cumsum_({d}) | {r}.tril_()
{f}.exp_() | {f}.sigmoid_() | {f}.tanh_() | {b}.logical_not_() | {i}.bitwise_and_(3)
{r}.diagonal().fill_(1) | {r}.unsqueeze({d}).mul_(2) | {r}.transpose(0, -1)[0].add_(1)
{r}.chunk(2, {d})[0].mul_(3) | {r}.select({d}, 0).copy_({r}.select({d}, -1)) | {f}.div_(2)
{f}.floor_() | {r}.flip(0).add_(1) | {r}.squeeze({d}).add_(1) | {r}.expand_as({r}).add_(1)
{r}.detach().mul_(2)
{r}[..., 1:] = {r}[..., 1:] * 2 | {r}[..., 1:] = {s} | {r}[..., 1:] = {r}[..., :-1].clone()
{r}[:, 1:] += {r}[:, :-1].clone() | {r}[{b}] = {s} | {r}[{b}] *= 2 | {r}.masked_fill_({b2}, {s})
{r}.masked_fill_({r2} > 0, -1) | {r}.view(-1).mul_(2) | {r}.view({r}.shape).add_({r=})
{r}.view(-1, 1)[:1].zero_() | {r}.permute({P})[0].mul_(2) | {r}.permute({P}).add_(1)
{r}.reshape(-1)[:1].add_(1)
{r}.index_put_((torch.arange({n0}) // 2,), {r}.clone(), accumulate=True)
{r}.scatter_reduce_({d}, torch.zeros_like({r}, dtype=torch.int64), {r}.clone(), "amax")
{r}.masked_scatter_({b2}, {r}.clone()) | {r}.put_(torch.tensor([0]), {r}.flatten()[-1:].clone())
{r}.unbind({d})[0].add_(1) | {r}.split(1, {d})[-1].zero_()
{r}.narrow({d}, 0, 1).copy_({r}.narrow({d}, {n} - 1, 1).clone()) | {r}.transpose_(0, -1)
{r}.unsqueeze_({d}) | {r}.squeeze_({d}) | torch.add({r}, {r=}, out={r})
torch.mul({r}, 2, out={r=}) | torch.cumsum({r}.clone(), {d}, out={r}) | {f}.lerp_({f=}, 0.3)
{f}.addcmul_({f=}, {f=}) | {r}.data.mul_(2) | {i}.bitwise_or_(4) | {i}.floor_divide_(-3)
{i}.remainder_(-5) | {i}.bitwise_left_shift_(3) | {b}.bitwise_and_({b2}) | {b}[..., 1:] = False
{b} |= {b2} | {c}.mul_(2) | {c}.real.add_(1) | {f}.nan_to_num_() | {f}.round_()
{f}.masked_fill_({f}.isnan(), 0) | {f}.sub_({f}.mean()) | {f}.div_({f}.abs().amax() + 1)
{f}.clamp_(-1, 1) | {r}.index_copy_(0, torch.tensor([0]), {r}[-1:].clone())
{r}.diagonal(0, 0, -1).mul_(3) | {r}[..., None].add_(1) | {r}[None][0, 0] = 4 | {r}[[0, -1]] = 5
{r}[[0, 0]] += 1 | {r}[torch.arange({n0}) // 2] = {r}[:1] | {r}[..., -1:] = {r}[..., :1]
{r}[::2] = {r}[:1] * 2 | {r}[{n0} // 2:] = 0 | {r}[:{n0} - 1].add_({r}[-1:].clone())
{r}.flatten()[::2].mul_(3) | {r}.chunk(2, {d})[-1].neg_() | {r}.unfold({d}, 1, 1).add_(1)
for c in {r}.unbind({d}): c.add_(1) | for i, c in enumerate({r}.split(2, {d})): c.mul_(i)
for i in range({n0}): {r}[i] += i | for c in {r}.chunk(3, {d}): c[..., :1] = 0
for i in range(1, {n0}): {r}[i] += {r}[i - 1]
"""

LAYERS = {
    "nn.Linear({in}, {out})": "{f}",
    "nn.Linear({in}, {out}, bias=False)": "{f}",
    "nn.LayerNorm({in})": "{f}",
    "nn.RMSNorm({in})": "{f}",
    "nn.Conv1d({channels}, {out}, 3, padding=1)": "{f}",
    "nn.Conv1d({channels}, {out}, 1)": "{f}",
    "nn.Conv2d({channels}, {out}, 3, padding=1)": "{f}",
    "nn.Conv2d({channels}, {channels}, 2, groups={channels})": "{f}",
    "nn.ConvTranspose1d({channels}, {out}, 2)": "{f}",
    "nn.BatchNorm1d({channels})": "{f}",
    "nn.BatchNorm2d({channels})": "{f}",
    "nn.GroupNorm(1, {channels})": "{f}",
    "nn.Embedding(8, {out})": "{i}.long() & 7",
    "nn.GRU({in}, {out}, batch_first=True)": "{f}",
    "nn.MultiheadAttention({in}, 1, batch_first=True)": "{f}, {f}, {f}",
    "nn.Sequential(nn.Linear({in}, {out}), nn.GELU(), nn.Linear({out}, {in}))": "{f}",
}
"""Layers, with what they are called with; `in` and `channels` are sizes of the first value."""

BUFFERS = """
{r} + {buffer} | {r} * {buffer} | {buffer}[..., :1] + {r} | torch.where({r} > 0, {r}, {buffer})
{buffer} @ {f}.mT | torch.cat([{buffer}.expand_as({r}), {r}]) | {r} - {buffer}.sum()
{buffer}.add_(1) | {buffer}.mul_({r}.float().mean())
{buffer}.copy_({buffer} * 2) | {buffer}[:1] = 3
{buffer}[:1].add_({r}.float().nan_to_num(0, 9, 0).amax()) | {buffer}.view(-1).mul_(2)
"""


def lines(text: str) -> tuple[str, ...]:
    """The lines of a table; ` | ` separates those in a row, but not within parentheses."""
    found = []
    for row in text.strip().splitlines():
        depth, start, padded = 0, 0, f"{row} | "
        for at, letter in enumerate(padded):
            depth += (letter in "([") - (letter in ")]")
            if depth == 0 and padded[at : at + 3] == " | ":
                found.append(padded[start:at].strip())
                start = at + 3
    return tuple(found)


TABLES = {
    lines(UNARY): 20,
    lines(BINARY): 22,
    lines(CASTS): 8,
    lines(REDUCTIONS): 12,
    lines(PRODUCTS): 5,
    lines(VIEWS): 14,
    lines(JOINS): 6,
    lines(MADE): 3,
    lines(INDEXING): 7,
    lines(IMAGES): 6,
    lines(IN_PLACE): 6,
    lines(BUFFERS): 2,
}
"""Tables, and how often a line is from each."""

WRITING = (lines(IN_PLACE),)
"""Tables whose lines make no value."""
