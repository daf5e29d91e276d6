// Everything that TypeScript may call. The contracts are written once, in src/kernels/kernels.ts.

export { dataRanges } from './zero-detect';
