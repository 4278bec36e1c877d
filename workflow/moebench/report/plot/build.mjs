// Bundle what entry.js names: plot.js, and LICENSES.txt of every package that is in it.  `make plot` runs this.
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const made = await build({
  entryPoints: ["entry.js"], bundle: true, minify: true, format: "iife", globalName: "Plot", target: "es2020",
  charset: "ascii", legalComments: "none", metafile: true, write: false, outfile: "plot.js",
});
const [inputs] = Object.values(made.metafile.outputs).map(out => out.inputs);
const packages = [...new Set(Object.entries(inputs).filter(([, part]) => part.bytesInOutput)
  .map(([path]) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]).filter(Boolean))].sort();
const texts = packages.map(name => {
  const folder = `node_modules/${name}`, about = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find(one => /^licen[cs]e/i.test(one));
  return `${name} ${about.version} (${about.license})\n\n${readFileSync(`${folder}/${file}`, "utf8").trim()}\n`;
});
writeFileSync("LICENSES.txt", texts.join(`\n${"-".repeat(72)}\n\n`));
const head = `/* ${packages.map(name => `${name} ${JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8")).version}`).join(", ")}: ISC licence, copyright Observable, Inc. and Mike Bostock; ColorBrewer schemes: Apache 2.0, Cynthia Brewer. Full texts: LICENSES.txt beside the source, licenses/observable-plot.txt in an archive. */\n`;
const [output] = made.outputFiles;
writeFileSync("plot.js", head + output.text.replaceAll("</script", "<\\/script"));
copyFileSync("node_modules/axe-core/axe.min.js", "../../../../tests/report/axe.min.js");  // for the tests of the page
