// The S-box of AES as a circuit over bits: no table, so neither time nor memory accesses depend on
// what goes through it.
//
// The state is eight vectors, one for each bit of a byte: bit j of byte i of vector k is bit k of
// byte i of block j. One pass substitutes the 128 bytes of eight blocks.
//
// Circuit: J. Boyar and R. Peralta, "A depth-16 circuit for the AES S-box", 115 gates. Its four
// inverters are left out: the result differs from the S-box by 0x63, which the round keys make up
// for (a constant of equal bytes passes ShiftRows and MixColumns unchanged).

import { SCRATCH } from './layout';

/** The state: eight vectors of 16 bytes. */
// @ts-ignore: decorator
@inline export const STATE: usize = SCRATCH;
// @ts-ignore: decorator
@inline export const STATE_BYTES: usize = 128;

// @ts-ignore: decorator
@inline
export function get(bit: usize): v128 {
  return v128.load(STATE + (bit << 4));
}

// @ts-ignore: decorator
@inline
export function put(bit: usize, value: v128): void {
  v128.store(STATE + (bit << 4), value);
}

// @ts-ignore: decorator
@inline
function xor(a: v128, b: v128): v128 {
  return v128.xor(a, b);
}

// @ts-ignore: decorator
@inline
function and(a: v128, b: v128): v128 {
  return v128.and(a, b);
}

/** Substitutes all bytes of the state, each result XORed with 0x63. */
// @ts-ignore: decorator
@inline
export function subBytes(): void {
  const x0 = get(7), x1 = get(6), x2 = get(5), x3 = get(4);
  const x4 = get(3), x5 = get(2), x6 = get(1), x7 = get(0);

  // Top linear transformation.
  const y14 = xor(x3, x5), y13 = xor(x0, x6), y9 = xor(x0, x3), y8 = xor(x0, x5);
  const t0 = xor(x1, x2);
  const y1 = xor(t0, x7);
  const y4 = xor(y1, x3), y12 = xor(y13, y14), y2 = xor(y1, x0), y5 = xor(y1, x6);
  const y3 = xor(y5, y8);
  const t1 = xor(x4, y12);
  const y15 = xor(t1, x5), y20 = xor(t1, x1);
  const y6 = xor(y15, x7), y10 = xor(y15, t0), y11 = xor(y20, y9);
  const y7 = xor(x7, y11), y17 = xor(y10, y11), y19 = xor(y10, y8), y16 = xor(t0, y11);
  const y21 = xor(y13, y16), y18 = xor(x0, y16);

  // The part that is not linear: an inversion in GF(2^8) by way of GF(2^4).
  const t2 = and(y12, y15);
  const t4 = xor(and(y3, y6), t2);
  const t6 = xor(and(y4, x7), t2);
  const t7 = and(y13, y16);
  const t9 = xor(and(y5, y1), t7);
  const t11 = xor(and(y2, y7), t7);
  const t12 = and(y9, y11);
  const t14 = xor(and(y14, y17), t12);
  const t16 = xor(and(y8, y10), t12);
  const t21 = xor(xor(t4, t14), y20);
  const t22 = xor(xor(t6, t16), y19);
  const t23 = xor(xor(t9, t14), y21);
  const t24 = xor(xor(t11, t16), y18);
  const t25 = xor(t21, t22);
  const t26 = and(t21, t23);
  const t27 = xor(t24, t26);
  const t29 = xor(and(t25, t27), t22);
  const t33 = xor(and(xor(t22, t26), xor(t23, t24)), t24);
  const t36 = and(t24, xor(t27, t33));
  const t37 = xor(t36, xor(t23, t33));
  const t40 = xor(t25, and(t29, xor(t27, t36)));
  const t41 = xor(t40, t37), t42 = xor(t29, t33), t43 = xor(t29, t40), t44 = xor(t33, t37);
  const t45 = xor(t42, t41);
  const z0 = and(t44, y15), z1 = and(t37, y6), z2 = and(t33, x7), z3 = and(t43, y16);
  const z4 = and(t40, y1), z5 = and(t29, y7), z6 = and(t42, y11), z7 = and(t45, y17);
  const z8 = and(t41, y10), z9 = and(t44, y12), z10 = and(t37, y3), z11 = and(t33, y4);
  const z12 = and(t43, y13), z13 = and(t40, y5), z14 = and(t29, y2), z15 = and(t42, y9);
  const z16 = and(t45, y14), z17 = and(t41, y8);

  // Bottom linear transformation.
  const t46 = xor(z15, z16), t48 = xor(z5, z13), t53 = xor(z0, z3), t54 = xor(z6, z7);
  const t57 = xor(xor(z2, z12), t53);
  const t58 = xor(z4, t46), t59 = xor(z3, t54);
  const t62 = xor(xor(z7, z8), t58), t63 = xor(xor(z9, z10), t58);
  const t64 = xor(z4, t59), t65 = xor(xor(z14, t57), t62), t66 = xor(z1, t63);
  const s3 = xor(t53, t66);
  put(7, xor(t59, t63));
  put(6, xor(t64, s3));
  put(5, xor(xor(z16, z17), xor(t64, t65)));
  put(4, s3);
  put(3, xor(xor(z2, z5), t66));
  put(2, xor(xor(z10, z11), t65));
  put(1, xor(xor(z12, t48), t62));
  put(0, xor(t48, xor(t46, t57)));
}

/**
 * The linear map that turns the S-box into its inverse: S⁻¹(x ⊕ 0x63) = B(S(B(x)) ⊕ 0x63), where
 * B is the inverse of the S-box's affine part without its constant.
 */
// @ts-ignore: decorator
@inline
function unmix(): void {
  const q0 = get(0), q1 = get(1), q2 = get(2), q3 = get(3);
  const q4 = get(4), q5 = get(5), q6 = get(6), q7 = get(7);
  put(7, xor(xor(q1, q4), q6));
  put(6, xor(xor(q0, q3), q5));
  put(5, xor(xor(q7, q2), q4));
  put(4, xor(xor(q6, q1), q3));
  put(3, xor(xor(q5, q0), q2));
  put(2, xor(xor(q4, q7), q1));
  put(1, xor(xor(q3, q6), q0));
  put(0, xor(xor(q2, q5), q7));
}

/** The inverse of `subBytes`: takes bytes that are XORed with 0x63. */
// @ts-ignore: decorator
@inline
export function invSubBytes(): void {
  unmix();
  subBytes();
  unmix();
}
