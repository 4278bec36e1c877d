// What the explorer uses of Observable Plot; esbuild leaves the rest out.
export { plot, line, dot, link, ruleY } from "@observablehq/plot";
