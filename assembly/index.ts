// Everything that TypeScript may call. The contracts are written once, in src/kernels/kernels.ts.

export { dataRanges } from './zero-detect';
export { firstDifference } from './first-difference';
export { compressedDescriptors } from './compressed-descriptor';
export { l2ExtendedRuns } from './l2-extended';
export { l2Runs } from './l2-run';
export { bitmapBits } from './bitmap-offset';
export { bitmapMerge } from './bitmap-merge';
export { bitmapRuns } from './bitmap-scan';
export { l2References } from './reference-count';
export { l2CopiedMismatch } from './copied-mismatch';
export { refcountCompare, refcountOnes } from './refcount-compare';
export { refcountGet, refcountSet } from './refcount-get-set';
export { refcountAdd } from './refcount-add';
export { l2CopiedFlags } from './copied-flags';
export { refcountFreeRuns } from './refcount-scan';
export { inflate } from './inflate';
export { zstdDecode } from './zstd-decode';
export { zstdEncode } from './zstd-encode';
export { deflate } from './deflate';
export { aesDecrypt, aesEncrypt, aesExpandKey } from './aes';
export { xorBytes, xtsXor } from './xts';
