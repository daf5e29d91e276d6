// Types and tidiness: what can be said about the sources without running them.
//
//   node scripts/check.js [--fix]
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { ensureSetup, root } from './setup.js';

await ensureSetup({ build: false });

const fix = process.argv.includes('--fix');
const steps = [
  ['tsc', '--noEmit'],
  ['biome', 'check', ...(fix ? ['--write'] : [])],
];

let passed = 0;
for (const [tool, ...args] of steps) {
  const bin = join(root, 'node_modules', '.bin', tool);
  const { status } = spawnSync(bin, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === 0) passed++;
}
console.log(`${passed} passed, ${steps.length - passed} failed, 0 skipped`);
process.exitCode = passed === steps.length ? 0 : 1;
