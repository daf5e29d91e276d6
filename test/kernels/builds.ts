/** The implementations that every kernel test runs over. */
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { type Twinned, twinKernels } from './twin/kernels.ts';

export const builds: Readonly<Record<'wasm' | 'twin', (memory: WebAssembly.Memory) => Twinned>> = {
  wasm: (memory) => wasmKernels(memory),
  twin: twinKernels,
};
