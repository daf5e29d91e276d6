/** AES by the book (FIPS 197), a byte at a time. The schedule holds the round keys as they are. */
import { AES_SCHEDULE_BYTES, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';

/** Multiplies by x in GF(2^8). */
function double(byte: number): number {
  return ((byte << 1) ^ (byte & 0x80 ? 0x11b : 0)) & 0xff;
}

function multiply(a: number, b: number): number {
  let product = 0;
  for (let bit = a; b > 0; b >>= 1, bit = double(bit)) if (b & 1) product ^= bit;
  return product;
}

const SBOX = Uint8Array.from({ length: 256 }, (_, byte) => {
  let inverse = 0;
  for (let other = 1; other < 256 && inverse === 0; other++) {
    if (multiply(byte, other) === 1) inverse = other;
  }
  let result = 0x63;
  for (let turn = 0; turn < 5; turn++) result ^= (inverse << turn) | (inverse >> (8 - turn));
  return result & 0xff;
});
const INVERSE_SBOX = Uint8Array.from({ length: 256 }, (_, byte) => SBOX.indexOf(byte));

/** Prepares a key. */
export function aesExpandKey(memory: WebAssembly.Memory) {
  return (key: number, keyBytes: number, schedule: number): number => {
    if (![16, 24, 32].includes(keyBytes)) return MISUSE;
    if (!mapped(memory, key, keyBytes)) return MISUSE;
    if (!mapped(memory, schedule, AES_SCHEDULE_BYTES)) return MISUSE;
    const rounds = keyBytes / 4 + 6;
    const words = new Uint8Array(memory.buffer, schedule, (rounds + 1) * 16);
    words.set(new Uint8Array(memory.buffer, key, keyBytes).slice());
    let constant = 1;
    for (let at = keyBytes; at < words.length; at += 4) {
      let word = [...words.subarray(at - 4, at)];
      if (at % keyBytes === 0) {
        word = [...word.slice(1), word[0]!].map((byte) => SBOX[byte]!);
        word[0]! ^= constant;
        constant = double(constant);
      } else if (keyBytes === 32 && at % 32 === 16) {
        word = word.map((byte) => SBOX[byte]!);
      }
      for (let i = 0; i < 4; i++) words[at + i] = words[at + i - keyBytes]! ^ word[i]!;
    }
    return rounds;
  };
}

function crypt(memory: WebAssembly.Memory, one: (keys: Uint8Array, block: Uint8Array) => void) {
  return (schedule: number, rounds: number, at: number, blocks: number): number => {
    if (![10, 12, 14].includes(rounds)) return MISUSE;
    if (!mapped(memory, schedule, AES_SCHEDULE_BYTES)) return MISUSE;
    if (!mapped(memory, at, (blocks >>> 0) * 16)) return MISUSE;
    const keys = new Uint8Array(memory.buffer, schedule, (rounds + 1) * 16);
    for (let block = 0; block < blocks; block++) {
      one(keys, new Uint8Array(memory.buffer, at + block * 16, 16));
    }
    return 0;
  };
}

function addKey(block: Uint8Array, keys: Uint8Array, at: number): void {
  for (let i = 0; i < 16; i++) block[i]! ^= keys[at + i]!;
}

function mix(block: Uint8Array, factors: readonly number[]): void {
  for (let column = 0; column < 16; column += 4) {
    const old = block.slice(column, column + 4);
    for (let row = 0; row < 4; row++) {
      let sum = 0;
      for (let i = 0; i < 4; i++) sum ^= multiply(old[(row + i) % 4]!, factors[i]!);
      block[column + row] = sum;
    }
  }
}

/** Encrypts blocks in place. */
export function aesEncrypt(memory: WebAssembly.Memory) {
  return crypt(memory, (keys, block) => {
    addKey(block, keys, 0);
    for (let key = 16; key < keys.length; key += 16) {
      const old = block.slice();
      for (let i = 0; i < 16; i++) block[i] = SBOX[old[(i + 4 * (i % 4)) % 16]!]!;
      if (key + 16 < keys.length) mix(block, [2, 3, 1, 1]);
      addKey(block, keys, key);
    }
  });
}

/** Decrypts blocks in place. */
export function aesDecrypt(memory: WebAssembly.Memory) {
  return crypt(memory, (keys, block) => {
    for (let key = keys.length - 16; key > 0; key -= 16) {
      addKey(block, keys, key);
      if (key + 16 < keys.length) mix(block, [14, 11, 13, 9]);
      const old = block.slice();
      for (let i = 0; i < 16; i++) block[(i + 4 * (i % 4)) % 16] = INVERSE_SBOX[old[i]!]!;
    }
    addKey(block, keys, 0);
  });
}
