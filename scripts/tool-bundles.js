// Bundles the tools so that they start fast.
//
// A file costs some 0.4 ms to find, read and link, and 100 KB of code 2 ms to look through. Code
// that is imported when it is asked for would be a file for each such import, and one more for each
// set of them that has something in common: `info` would take 50. So it is put together to a few
// tiers, each of which builds on the one before (TIERS below). An `import('./x.ts')` in the sources
// becomes one of its tier, which has x.ts as one of its names.
//
// The files are scripts (CommonJS), and dist/ says so in a package.json of its own: Node's loader
// of modules takes milliseconds, and loads the streams and promises of `node:fs` with it.
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { root } from './setup.js';

/**
 * Modules that are imported when they are asked for, by tool and tier; the last tier has all that
 * are not named.
 */
const TIERS = {
  'src/cli/qcow2-img.ts': {
    /** With what the entry point imports itself. */
    first: [
      'src/cli/commands/info.ts',
      'src/cli/help/version-text.ts',
      'src/cli/image-report.ts',
      'src/cli/json.ts',
    ],
    read: [
      'src/cli/commands/convert.ts',
      'src/image/luks/luks-image.ts',
      'src/image/qcow2/encryption.ts',
      'src/image/qcow2/plain-storage.ts',
    ],
    write: [
      'src/cli/commands/create.ts',
      'src/convert/to-qcow2.ts',
      'src/image/qcow2/create.ts',
      'src/image/qcow2/writer.ts',
    ],
    rest: [],
  },
  'src/cli/qcow2-io.ts': {
    first: [],
    write: ['src/cli/io/commands.ts', 'src/cli/io/run.ts', 'src/image/qcow2/writer.ts'],
    rest: [],
  },
};
/** And those that bring much of Node along: each is by itself, upon the second tier. */
const ALONE = [
  'src/cli/run-again.ts',
  'src/cli/passphrase-prompt.ts',
  'src/convert/pool-node.ts',
  'src/storage/node-input.ts',
];

/** Of what every run needs anyway: it goes to the first tier, rather than to files of its own. */
const ALWAYS = ['src/storage/node-error.ts', 'src/storage/node-file.ts'];

/** What a tool is called by, and its worker: it loads the script that the name stands for. */
const LOADER = 'src/cli/script-loader.ts';

/** What a tool starts; it is given the kernels that its starter has compiled. */
const WORKER = 'src/convert/worker-node.ts';
const WORKER_NAME = 'convert-worker';

/** The entry points of the tools. */
export const tools = Object.keys(TIERS);

/** A script's own place, where the sources ask for `import.meta.url`. */
const URL_OF_SCRIPT = "const __url = require('node:url').pathToFileURL(__filename).href;";

const LAZY_IMPORT = /(?<!typeof )\bimport\('(\.{1,2}\/[^']+\.ts)'\)/g;
const nameOf = (path) => path.replace(/\W/g, '_');

/**
 * Writes the files of one tool: its entry point, and what it loads from beside it.
 *
 * @param esbuild the package
 * @param entry path of the tool's entry point
 * @param options what all bundles have in common, and where they go
 */
export async function bundleTool(esbuild, entry, options) {
  const name = basename(entry, '.ts');
  const common = { ...options, minify: true, write: false };
  const loader = (of) =>
    esbuild.build({
      ...common,
      format: 'cjs',
      entryPoints: { [of]: LOADER },
      define: { MAIN_SCRIPT: JSON.stringify(`${of}-main.js`) },
    });
  const [{ outputFiles }, worker, ...loaders] = await Promise.all([
    esbuild.build({
      ...common,
      plugins: [...options.plugins, await tiersOf(entry, esbuild, options)],
      entryPoints: { [`${name}-main`]: entry },
      splitting: true,
      // Flat: the worker is looked for beside whichever file its starter ends up in.
      chunkNames: `${name}-[hash]`,
    }),
    esbuild.build({
      ...common,
      entryPoints: { [`${WORKER_NAME}-main`]: WORKER },
      loader: { '.wasm': 'empty' },
    }),
    loader(name),
    loader(WORKER_NAME),
  ]);
  for (const { path, text } of loaders.flatMap(({ outputFiles }) => outputFiles)) {
    writeFileSync(path, text);
  }
  for (const { path, text } of [...outputFiles, ...worker.outputFiles]) {
    writeFileSync(path, await asScript(esbuild, text, options.target));
  }
}

/** Makes a script of a module: only modules can be split. */
async function asScript(esbuild, text, target) {
  const { code } = await esbuild.transform(text, {
    format: 'cjs',
    minify: true,
    platform: 'node',
    target,
    supported: { 'dynamic-import': false },
    define: { 'import.meta.url': '__url' },
    banner: text.includes('import.meta.url') ? URL_OF_SCRIPT : '',
  });
  return code;
}

/** The plugin for esbuild that makes tiers of what the entry point imports. */
async function tiersOf(entry, esbuild, options) {
  const lists = TIERS[entry];
  const names = Object.keys(lists);
  const lazy = await lazyModules(entry, esbuild, options);
  const tierOf = (path) => {
    if (ALONE.includes(path)) return path;
    return names.find((name) => lists[name].includes(path)) ?? names.at(-1);
  };
  const below = (tier) => (ALONE.includes(tier) ? names[1] : names[names.indexOf(tier) - 1]);

  /** A tier as a module: a name for each of its modules, and the tier that it builds on. */
  const tierText = (tier) => {
    const start = below(tier)
      ? [`import { tier as below } from 'tier:${below(tier)}';`, 'export const tier = below + 1;']
      : ['export const tier = 0;'];
    const paths = [...lazy.filter((path) => tierOf(path) === tier), ...(below(tier) ? [] : ALWAYS)];
    return [...start, ...paths.map((path) => `export * as ${nameOf(path)} from './${path}';`)].join(
      '\n',
    );
  };

  /** Makes imports of modules imports of their tiers; the first one is there already. */
  const rewrite = (text, here) => {
    const [first] = names;
    let needsFirst = here === entry;
    const rewritten = text.replace(LAZY_IMPORT, (_, name) => {
      const path = join(dirname(here), name);
      const tier = tierOf(path);
      if (tier !== first) return `import('tier:${tier}').then((tier) => tier.${nameOf(path)})`;
      needsFirst = true;
      return `Promise.resolve(firstTier.${nameOf(path)})`;
    });
    if (!needsFirst) return rewritten;
    return rewritten.replace(/^import /m, `import * as firstTier from 'tier:${first}';\nimport `);
  };

  return {
    name: 'tiers',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^tier:/ }, ({ path }) => ({ path, namespace: 'tier' }));
      onLoad({ filter: /./, namespace: 'tier' }, ({ path }) => ({
        contents: tierText(path.slice('tier:'.length)),
        resolveDir: root,
      }));
      onLoad({ filter: /\.ts$/ }, ({ path }) => ({
        contents: rewrite(readFileSync(path, 'utf8'), relative(root, path)),
        loader: 'ts',
      }));
    },
  };
}

/** Modules of a tool that are imported when they are asked for. */
async function lazyModules(entry, esbuild, options) {
  const look = { ...options, entryPoints: [entry], write: false, metafile: true };
  const { metafile } = await esbuild.build(look);
  const imports = Object.values(metafile.inputs).flatMap(({ imports }) => imports);
  const lazy = imports.filter(({ kind, external }) => kind === 'dynamic-import' && !external);
  return [...new Set(lazy.map(({ path }) => path))].sort();
}
