#!/usr/bin/env node
/**
 * Starts a tool from its scripts with what V8 made of them when the tool was built: parsing was
 * two fifths of what an empty conversion takes beyond Node's own start. V8 sees for itself whether
 * that is of its version and flags, and parses where it is not.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Script } from 'node:vm';

/** File name of the script to start with; the build defines it. */
declare const MAIN_SCRIPT: string;

/** A function that a script is wrapped in, as Node's own loader does it. */
type Wrapped = (
  exports: unknown,
  require: (id: string) => unknown,
  module: NodeJS.Module,
  filename: string,
  dirname: string,
) => void;

const require = createRequire(__filename);
const caches = join(__dirname, 'code-cache', `${process.version}-${process.arch}`);
const hasCaches = existsSync(caches);

function cacheOf(name: string): Buffer | undefined {
  try {
    return hasCaches ? readFileSync(join(caches, name)) : undefined;
  } catch {
    // A script that no run at build time asked for.
    return undefined;
  }
}

/** What scripts know as `require`: those that lie beside this one, and Node's own modules. */
function load(id: string): unknown {
  if (!id.startsWith('./')) return require(id);
  const filename = join(__dirname, id);
  const known = require.cache[filename];
  if (known) return known.exports;
  const module = { exports: {}, filename, id: filename, loaded: false } as NodeJS.Module;
  // Before it runs: scripts may ask for each other.
  require.cache[filename] = module;
  // The build writes ASCII, and V8 keeps it as it is: decoding took longer than reading.
  const source = readFileSync(filename, 'latin1');
  const text = `(function(exports,require,module,__filename,__dirname){${source}\n})`;
  const script = new Script(text, { filename, cachedData: cacheOf(id.slice(2)) });
  const run = script.runInThisContext() as Wrapped;
  run(module.exports, load, module, filename, __dirname);
  module.loaded = true;
  return module.exports;
}

load(`./${MAIN_SCRIPT}`);
