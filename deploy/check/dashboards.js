// Compares each dashboard with Grafana's published schema types: the dashboard itself, and the options and field settings of each panel with
// those of its kind. `npm ci && npm run check` in this folder; exit code 1 and TypeScript's words if one does not fit.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const dashboards = join(here, '..', 'grafana', 'dashboards');

// Kind of panel: where its types are, and whether they have field settings of their own.
const kinds = {
  timeseries: ['timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen', true],
  stat: ['stat/panelcfg/x/StatPanelCfg_types.gen', false],
  table: ['table/panelcfg/x/TablePanelCfg_types.gen', true],
  heatmap: ['heatmap/panelcfg/x/HeatmapPanelCfg_types.gen', true],
  'state-timeline': ['statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen', true],
};

// Enumerations are plain texts in JSON.
const plain =
  'type Plain<T> = T extends string ? `${T}` : T extends number | boolean ? T : T extends (infer U)[] ? Plain<U>[] : ' +
  'T extends object ? { [K in keyof T]: Plain<T[K]> } : T;\n';

function source(text) {
  const dashboard = JSON.parse(text);
  const lines = ["import type { Dashboard } from '@grafana/schema';"];
  Object.values(kinds).forEach(([path], i) => lines.push(`import type * as K${i} from '@grafana/schema/dist/esm/raw/composable/${path}';`));
  lines.push(plain, `export const dashboard: Plain<Dashboard> = ${text};`);
  const names = Object.keys(kinds);
  for (const panel of dashboard.panels.filter((p) => p.type !== 'row')) {
    const at = names.indexOf(panel.type);
    if (at < 0) throw new Error(`panel "${panel.title}": kind ${panel.type} is not known here; known: ${names}`);
    const named = (part) => `// ${panel.title}\nexport const ${part}${panel.id}`;
    lines.push(`${named('options')}: Plain<Partial<K${at}.Options>> = ${JSON.stringify(panel.options ?? {})};`);
    const custom = panel.fieldConfig?.defaults?.custom;
    if (custom && kinds[panel.type][1]) lines.push(`${named('custom')}: Plain<Partial<K${at}.FieldConfig>> = ${JSON.stringify(custom)};`);
  }
  return lines.join('\n');
}

let failed = false;
const scratch = mkdtempSync(join(here, 'check-'));
try {
  for (const file of readdirSync(dashboards).filter((f) => f.endsWith('.json'))) {
    const checked = join(scratch, file.replace('.json', '.ts'));
    writeFileSync(checked, source(readFileSync(join(dashboards, file), 'utf8')));
    const options = ['--noEmit', '--strict', '--skipLibCheck', '--moduleResolution', 'bundler', '--module', 'esnext', '--target', 'es2022'];
    const tsc = spawnSync(join(here, 'node_modules/.bin/tsc'), [...options, checked], { encoding: 'utf8' });
    if (tsc.status !== 0) console.error(tsc.stdout + tsc.stderr);
    failed ||= tsc.status !== 0;
    console.log(`${file}: ${tsc.status === 0 ? 'fits' : 'does not fit'} Grafana's types`);
  }
} finally {
  rmSync(scratch, { recursive: true });
}
process.exitCode = failed ? 1 : 0;
