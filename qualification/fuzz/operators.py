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
"""

CASTS = """
{i}.to({t}) | {b}.to({t}) | {r}.to({tf}) | {r}.float() | {r}.double() | {f}.half() | {f}.bfloat16()
{r}.bool() | {f}.nan_to_num(0.0, 50.0, -50.0).clamp(-100, 100).to({ti})
{f}.nan_to_num(0.0, 9.0, 0.0).clamp(0, 200).byte() | {i}.to({ti}) | {b}.long() | {r}.type_as({r2})
{f}.bfloat16().float() | {f}.half().float() | {f}.half().bfloat16()
{f}.float().nan_to_num().view(torch.int32)
{f}.nan_to_num(0.0, 50.0, -50.0).clamp(-100, 100).int().float() | {i}.float() | {i}.to({tf})
{r}.to({tf})
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
{r}.sort({d}, stable=True)[0] | {r}.sort({d}, descending=True, stable=True)[1]
{r}.topk(1, {d})[0] | {r}.median({d})[0] | {r}.kthvalue(1, {d})[0] | {r}.argsort({d}, stable=True)
{r}.msort() | {f}.quantile(0.3, {d}) | torch.trapezoid({f}, dim={d})
torch.cumulative_trapezoid({f}, dim={d}) | {r}.unique_consecutive()[:0] | {r}.mode({d})[0]
torch.bucketize({f}, torch.tensor([-1.0, 0.0, 0.5]))
torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), {f}.float().contiguous())
{r}.renorm(2, 0, 1.0) | torch.histc({f}.float(), 4, -2, 2)
torch.bincount({i}.flatten().abs() & 3, minlength=4) | {r}.to(torch.int64).sum({d})
{r}.amax({d}, keepdim=True) - {r} | {f} - {f}.mean({d}, keepdim=True)
{f} / ({f}.norm(dim={d}, keepdim=True) + 1e-6) | {r} == {r}.amax({d}, keepdim=True)
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
"""

MADE = """
torch.arange({n}) | torch.arange({n}, dtype=torch.float32) | torch.arange(0, {n} * 2, 2)
torch.zeros({n}, 3) | torch.ones({n}) * {n} | torch.full(({n},), 0.5) | torch.zeros_like({a})
torch.ones_like({r}, dtype={t}) | torch.full_like({r}, 2) | torch.linspace(0, 1, {n})
torch.eye({n}) | {r}.new_zeros({n}, 2) | torch.tril(torch.ones({n}, {n}, dtype=torch.bool))
torch.arange({n})[None] <= torch.arange({n})[:, None] | torch.tensor([1.0, -2.0])
torch.scalar_tensor({n}) | torch.arange({n} - 1, -1, -1) | torch.arange({n}).float() / {n}
{a}.new_ones({a}.shape) | torch.empty_like({r}).fill_(3)
"""

INDEXING = """
{a}.gather({d}, torch.zeros_like({a}, dtype=torch.int64))
{r}.gather({d}, {r=}.argsort({d}, stable=True)) | {a}.index_select({d}, torch.arange({n}).flip(0))
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
{r}[{i}.flatten().long() % {n0}, ..., 0] | F.embedding({i}.long() & 3, {f}[:4].float())
torch.tril_indices({n}, {n})
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
    lines(IMAGES): 3,
    lines(IN_PLACE): 6,
    lines(BUFFERS): 2,
}
"""Tables, and how often a line is from each."""

WRITING = (lines(IN_PLACE),)
"""Tables whose lines make no value."""
