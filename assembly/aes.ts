// AES over many blocks in place (Kernels.aesExpandKey, aesEncrypt, aesDecrypt): eight blocks at a
// time as bits, in constant time.
//
//   schedule   15 round keys of 128 bytes, each the state of eight equal blocks, from the second on
//              XORed with the S-box's constant (see aes-sbox.ts); then as many for the inverse
//              cipher, with InvMixColumns applied
//
// Specification: FIPS 197. Technique: E. Käsper and P. Schwabe, "Faster and Timing-Attack Resistant
// AES-GCM" (the state's layout, and its MixColumns).

import { get, invSubBytes, put, STATE, STATE_BYTES, subBytes } from './aes-sbox';
import { MISUSE, mapped } from './bounds';

/** A state of zeros, while keys are made. */
// @ts-ignore: decorator
@inline const ZEROS: usize = STATE + STATE_BYTES;
/** Round keys as bytes, while they are made. */
// @ts-ignore: decorator
@inline const WORDS: usize = ZEROS + STATE_BYTES;
// @ts-ignore: decorator
@inline const SCRATCH_USED: usize = 2 * STATE_BYTES + 15 * 16;

/** Round keys before those of the inverse cipher. */
// @ts-ignore: decorator
@inline const INVERSE: usize = 15;
// @ts-ignore: decorator
@inline const SCHEDULE_BYTES: u64 = 2 * 15 * 128;

// @ts-ignore: decorator
@inline
function xor(a: v128, b: v128): v128 {
  return v128.xor(a, b);
}

// Row r of column c is byte 4c + r. ShiftRows moves row r by r columns.
// @ts-ignore: decorator
@inline
function shiftRows(a: v128): v128 {
  return v128.shuffle<u8>(a, a, 0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11);
}

// @ts-ignore: decorator
@inline
function invShiftRows(a: v128): v128 {
  return v128.shuffle<u8>(a, a, 0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3);
}

// Each row's bytes replaced by those of the next row, and of the one after that.
// @ts-ignore: decorator
@inline
function nextRow(a: v128): v128 {
  return v128.shuffle<u8>(a, a, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12);
}

// @ts-ignore: decorator
@inline
function secondRow(a: v128): v128 {
  return v128.shuffle<u8>(a, a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
}

// @ts-ignore: decorator
@inline
function keyAt(key: usize, bit: usize): v128 {
  return v128.load(key + (bit << 4));
}

// @ts-ignore: decorator
@inline
function addRoundKey(key: usize): void {
  for (let bit: usize = 0; bit < 8; bit++) put(bit, xor(get(bit), keyAt(key, bit)));
}

// One bit of MixColumns: 2(a ⊕ next) ⊕ next ⊕ second(a ⊕ next); `doubled` is the first term's bit.
// @ts-ignore: decorator
@inline
function mixBit(bit: usize, doubled: v128, next: v128, both: v128, key: usize): void {
  put(bit, xor(xor(doubled, next), xor(secondRow(both), keyAt(key, bit))));
}

/** MixColumns of eight vectors, with the round key added. */
// @ts-ignore: decorator
@inline
function mixColumns(
  a0: v128, a1: v128, a2: v128, a3: v128, a4: v128, a5: v128, a6: v128, a7: v128, key: usize,
): void {
  const n0 = nextRow(a0), n1 = nextRow(a1), n2 = nextRow(a2), n3 = nextRow(a3);
  const n4 = nextRow(a4), n5 = nextRow(a5), n6 = nextRow(a6), n7 = nextRow(a7);
  const b7 = xor(a7, n7);
  const b0 = xor(a0, n0), b1 = xor(a1, n1), b2 = xor(a2, n2), b3 = xor(a3, n3);
  const b4 = xor(a4, n4), b5 = xor(a5, n5), b6 = xor(a6, n6);
  mixBit(0, b7, n0, b0, key);
  mixBit(1, xor(b0, b7), n1, b1, key);
  mixBit(2, b1, n2, b2, key);
  mixBit(3, xor(b2, b7), n3, b3, key);
  mixBit(4, xor(b3, b7), n4, b4, key);
  mixBit(5, b4, n5, b5, key);
  mixBit(6, b5, n6, b6, key);
  mixBit(7, b6, n7, b7, key);
}

// @ts-ignore: decorator
@inline
function encryptRound(key: usize): void {
  subBytes();
  mixColumns(
    shiftRows(get(0)), shiftRows(get(1)), shiftRows(get(2)), shiftRows(get(3)),
    shiftRows(get(4)), shiftRows(get(5)), shiftRows(get(6)), shiftRows(get(7)), key,
  );
}

// InvMixColumns is MixColumns of a ⊕ 4(a ⊕ second(a)); the key is that of the equivalent inverse
// cipher (FIPS 197, 5.3.5).
// @ts-ignore: decorator
@inline
function invMixColumns(
  a0: v128, a1: v128, a2: v128, a3: v128, a4: v128, a5: v128, a6: v128, a7: v128, key: usize,
): void {
  const c0 = xor(a0, secondRow(a0)), c1 = xor(a1, secondRow(a1)), c2 = xor(a2, secondRow(a2));
  const c3 = xor(a3, secondRow(a3)), c4 = xor(a4, secondRow(a4)), c5 = xor(a5, secondRow(a5));
  const c6 = xor(a6, secondRow(a6)), c7 = xor(a7, secondRow(a7));
  const c67 = xor(c6, c7);
  mixColumns(
    xor(a0, c6), xor(a1, c67), xor(a2, xor(c0, c7)), xor(a3, xor(c1, c6)),
    xor(a4, xor(c2, c67)), xor(a5, xor(c3, c7)), xor(a6, c4), xor(a7, c5), key,
  );
}

// @ts-ignore: decorator
@inline
function decryptRound(key: usize): void {
  invSubBytes();
  invMixColumns(
    invShiftRows(get(0)), invShiftRows(get(1)), invShiftRows(get(2)), invShiftRows(get(3)),
    invShiftRows(get(4)), invShiftRows(get(5)), invShiftRows(get(6)), invShiftRows(get(7)), key,
  );
}

// Swaps the bits of `a` at `mask << shift` with those of `b` at `mask`.
// @ts-ignore: decorator
@inline
function swapBits(a: usize, b: usize, shift: i32, mask: v128): void {
  const x = get(a), y = get(b);
  const differ = v128.and(xor(v128.shr<u64>(x, shift), y), mask);
  put(b, xor(y, differ));
  put(a, xor(x, v128.shl<u64>(differ, shift)));
}

// Eight blocks to the state and back: a transposition of 8 × 8 bits, its own inverse.
function transpose(): void {
  const odd = i8x16.splat(0x55), pairs = i8x16.splat(0x33), nibbles = i8x16.splat(0x0f);
  for (let row: usize = 0; row < 8; row += 2) swapBits(row, row + 1, 1, odd);
  for (let row: usize = 0; row < 8; row += 4) {
    swapBits(row, row + 2, 2, pairs);
    swapBits(row + 1, row + 3, 2, pairs);
  }
  for (let row: usize = 0; row < 4; row++) swapBits(row, row + 4, 4, nibbles);
}

function encryptState(schedule: usize, rounds: u32): void {
  transpose();
  addRoundKey(schedule);
  for (let round: u32 = 1; round < rounds; round++) {
    schedule += STATE_BYTES;
    encryptRound(schedule);
  }
  schedule += STATE_BYTES;
  subBytes();
  for (let bit: usize = 0; bit < 8; bit++) {
    put(bit, xor(shiftRows(get(bit)), keyAt(schedule, bit)));
  }
  transpose();
}

function decryptState(schedule: usize, rounds: u32): void {
  transpose();
  let key = schedule + <usize>rounds * STATE_BYTES;
  addRoundKey(key);
  const inverse: usize = INVERSE * STATE_BYTES;
  for (let round: u32 = 1; round < rounds; round++) {
    key -= STATE_BYTES;
    decryptRound(key + inverse);
  }
  invSubBytes();
  for (let bit: usize = 0; bit < 8; bit++) {
    put(bit, xor(invShiftRows(get(bit)), keyAt(schedule, bit)));
  }
  transpose();
}

// @ts-ignore: decorator
@inline
function isRounds(rounds: u32): bool {
  return rounds == 10 || rounds == 12 || rounds == 14;
}

export function aesEncrypt(schedule: usize, rounds: u32, at: usize, blocks: u32): i32 {
  if (!isRounds(rounds) || !mapped(schedule, SCHEDULE_BYTES) || !mapped(at, <u64>blocks << 4)) {
    return MISUSE;
  }
  for (; blocks >= 8; blocks -= 8, at += STATE_BYTES) {
    memory.copy(STATE, at, STATE_BYTES);
    encryptState(schedule, rounds);
    memory.copy(at, STATE, STATE_BYTES);
  }
  if (blocks != 0) {
    memory.copy(STATE, at, blocks << 4);
    encryptState(schedule, rounds);
    memory.copy(at, STATE, blocks << 4);
  }
  return 0;
}

export function aesDecrypt(schedule: usize, rounds: u32, at: usize, blocks: u32): i32 {
  if (!isRounds(rounds) || !mapped(schedule, SCHEDULE_BYTES) || !mapped(at, <u64>blocks << 4)) {
    return MISUSE;
  }
  for (; blocks >= 8; blocks -= 8, at += STATE_BYTES) {
    memory.copy(STATE, at, STATE_BYTES);
    decryptState(schedule, rounds);
    memory.copy(at, STATE, STATE_BYTES);
  }
  if (blocks != 0) {
    memory.copy(STATE, at, blocks << 4);
    decryptState(schedule, rounds);
    memory.copy(at, STATE, blocks << 4);
  }
  return 0;
}

// The S-box for each byte of a word.
function substituteWord(word: u32): u32 {
  memory.fill(STATE, 0, STATE_BYTES);
  store<u32>(STATE, word);
  transpose();
  subBytes();
  transpose();
  return load<u32>(STATE) ^ 0x63636363;
}

/** Puts a round key of 16 bytes into the schedule as a state of eight equal blocks. */
function putRoundKey(words: usize, key: usize, first: bool): void {
  for (let block: usize = 0; block < STATE_BYTES; block += 16) {
    v128.store(STATE + block, v128.load(words));
  }
  transpose();
  // The constant 0x63 has bits 0, 1, 5 and 6.
  const constant = i8x16.splat(first ? 0 : -1);
  put(0, xor(get(0), constant));
  put(1, xor(get(1), constant));
  put(5, xor(get(5), constant));
  put(6, xor(get(6), constant));
  memory.copy(key, STATE, STATE_BYTES);
}

export function aesExpandKey(key: usize, keyBytes: u32, schedule: usize): i32 {
  if (keyBytes != 16 && keyBytes != 24 && keyBytes != 32) return MISUSE;
  if (!mapped(key, keyBytes) || !mapped(schedule, SCHEDULE_BYTES)) return MISUSE;
  const keyWords = keyBytes >> 2;
  const rounds = keyWords + 6;
  memory.copy(WORDS, key, keyBytes);
  let constant: u32 = 1;
  for (let index = keyWords; index < (rounds + 1) << 2; index++) {
    const at = WORDS + (<usize>index << 2);
    let word = load<u32>(at - 4);
    if (index % keyWords == 0) {
      word = substituteWord(rotr<u32>(word, 8)) ^ constant;
      constant = (constant << 1) ^ (constant >> 7 ? 0x11b : 0);
    } else if (keyWords == 8 && index % 8 == 4) {
      word = substituteWord(word);
    }
    store<u32>(at, load<u32>(at - (<usize>keyWords << 2)) ^ word);
  }
  memory.fill(ZEROS, 0, STATE_BYTES);
  for (let round: u32 = 0; round <= rounds; round++) {
    const place = schedule + <usize>round * STATE_BYTES;
    putRoundKey(WORDS + (<usize>round << 4), place, round == 0);
    invMixColumns(get(0), get(1), get(2), get(3), get(4), get(5), get(6), get(7), ZEROS);
    memory.copy(place + INVERSE * STATE_BYTES, STATE, STATE_BYTES);
  }
  // Nothing of the key stays behind.
  memory.fill(STATE, 0, SCRATCH_USED);
  return rounds;
}
