// Runs the uvu suites of one bundled test file and counts what happened, in Node or in a page.
//
//   node scripts/run-suites.js BUNDLE     sends { passed, failed, skipped } to the parent process
//
// uvu is told to defer: it then only queues the suites, and we run the queue once the module has
// been loaded to its end. Left alone it starts after the first `await` of a module's top level,
// and reports in a text that would have to be parsed.

/**
 * Imports the bundle at `url` and runs what it queued. Prints failures; never throws.
 *
 * @returns {Promise<{ passed: number, failed: number, skipped: number }>}
 */
export async function runSuites(url) {
  const result = { passed: 0, failed: 0, skipped: 0 };
  const queue = [];
  globalThis.UVU_DEFER = 1;
  globalThis.UVU_INDEX = 0;
  globalThis.UVU_QUEUE = [queue];
  try {
    await import(url);
  } catch (err) {
    fail(result, err);
    return result;
  }
  for (const run of queue) {
    try {
      const [errors, passed, skipped, total] = await run();
      result.passed += passed;
      result.skipped += skipped;
      result.failed += total - passed;
      if (errors.length > 0) console.log(`\n${errors}`);
      // uvu swallows what a hook throws; all that can be seen is that tests are missing.
      else if (passed < total)
        console.log('\na hook of this suite threw, so its tests did not run');
    } catch (err) {
      fail(result, err);
    }
  }
  if (result.passed + result.failed + result.skipped === 0) {
    fail(result, new Error('this file ran no test: is `test.run()` missing?'));
  }
  return result;
}

function fail(result, err) {
  result.failed++;
  console.log(`\n${err?.stack ?? err}\n`);
}

if (globalThis.process?.send) {
  // A suite that waits for something that never comes leaves Node with nothing to do; it exits,
  // and the parent counts a process that sent no result.
  const result = await runSuites(process.argv[2]);
  process.send(result);
  process.disconnect();
  if (result.failed > 0) process.exitCode = 1;
}
