/** The project's files, as the tidiness rules see them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { sep } from 'node:path';

/** Tests run in the project's folder. */
const FIXTURES = 'test/fixtures/';

/** Paths below these folders of files that people write, with `/` between their parts. */
export function sourceFiles(...folders: string[]): string[] {
  return folders.filter(existsSync).flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .map((path) => `${folder}/${path.split(sep).join('/')}`)
      .filter((path) => /\.[jt]s$/.test(path) && !path.startsWith(FIXTURES))
      .sort(),
  );
}

/** Applies a rule for the text of a file to each of them, and says where it is broken. */
export function broken(files: string[], rule: (text: string) => string[]): string[] {
  return files.flatMap((path) =>
    rule(readFileSync(path, 'utf8')).map((complaint) => `${path}: ${complaint}`),
  );
}
