// Entropies of symbol frequencies, for estimates of what a code would cost.

/** log2 of four numbers of 1 or more, within 0.01. */
// @ts-ignore: decorator
@inline
export function log2(x: v128): v128 {
  const exponent = f32x4.convert_i32x4_s(i32x4.sub(i32x4.shr_u(x, 23), i32x4.splat(127)));
  const mantissa = v128.or(v128.and(x, i32x4.splat(0x7fffff)), i32x4.splat(0x3f800000));
  const slope = f32x4.sub(f32x4.splat(2), f32x4.mul(mantissa, f32x4.splat(0.33333333)));
  return f32x4.add(
    exponent, f32x4.sub(f32x4.mul(mantissa, slope), f32x4.splat(0.66666667)),
  );
}

/** The sum of four numbers. */
// @ts-ignore: decorator
@inline
export function sum(x: v128): f32 {
  return f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1)
    + f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3);
}
