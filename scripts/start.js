// `npm start -- ARGS` is `qcow2-img ARGS` on a clone of which nothing is set up yet.
// `npm start` alone is a demonstration.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureSetup, root } from './setup.js';

await ensureSetup();

// npm changes to the project's folder; file names in ARGS are meant from where the person is.
if (process.env.INIT_CWD) process.chdir(process.env.INIT_CWD);

// Run in this process, so that stdin, stdout, signals and the exit code are the tool's own.
const args = process.argv.slice(2);
const program = join(root, 'dist', 'qcow2-img.js');
process.argv = [process.argv[0], program, ...(args.length > 0 ? args : ['--demo'])];
await import(pathToFileURL(program).href);
