// The site of the documentation: make site, which copies docs beside this directory. A link that leads nowhere fails the build.
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitepress";

const docs = fileURLToPath(new URL("../docs", import.meta.url));
const repository = "https://github.com/flux-admission/flux-admission";
// SITE_VERSIONS has the versions that are published beside this one, as NAME=PATH separated by commas.
const versions = (process.env.SITE_VERSIONS ?? "").split(",").filter(Boolean).map((entry) => {
  const [text, link] = entry.split("=");
  return { text, link, target: "_self" };
});

const pages = (directory: string) =>
  readdirSync(`${docs}/${directory}`)
    .filter((name) => name.endsWith(".md") && name !== "README.md")
    .sort()
    .map((name) => ({ text: name.replace(/\.md$/, ""), link: `/${directory}/${name.replace(/\.md$/, "")}` }));

export default defineConfig({
  title: "flux-admission",
  description: "An admission webhook for Kubernetes clusters that run Flux, and the same rules before the cluster",
  base: process.env.SITE_BASE ?? "/",
  srcDir: "docs",
  outDir: "dist",
  cleanUrls: true,
  rewrites: { "README.md": "index.md", ":directory/README.md": ":directory/index.md" },
  // Texts such as NAME<n> and {{ns}} are neither elements nor templates here.
  vue: { template: { compilerOptions: { delimiters: ["[[[[", "]]]]"] } } },
  markdown: {
    html: false,
    // Files that are no pages are on GitHub.
    config(md) {
      const render = md.renderer.rules.link_open ?? ((tokens, i, options, _, self) => self.renderToken(tokens, i, options));
      md.renderer.rules.link_open = (tokens, i, options, env, self) => {
        const href = tokens[i].attrGet("href") ?? "";
        if (/^\.\.\/(README|CHANGELOG|CONTRIBUTING|SECURITY|manifests\/|internal\/|\.github\/)/.test(href)) {
          tokens[i].attrSet("href", `${repository}/blob/main/${href.slice(3)}`);
        }
        if (/^(man$|schemas\/)/.test(href)) {
          tokens[i].attrSet("href", `${repository}/blob/main/docs/${href}`);
        }
        return render(tokens, i, options, env, self);
      };
    },
  },
  themeConfig: {
    search: { provider: "local" },
    nav: versions.length > 0 ? [{ text: "Versions", items: versions }] : [],
    socialLinks: [{ icon: "github", link: repository }],
    editLink: { pattern: `${repository}/edit/main/docs/:path` },
    outline: [2, 3],
    sidebar: [
      {
        text: "Begin",
        items: [
          { text: "Your object was denied", link: "/denied" },
          { text: "A first repository", link: "/first-repository" },
          { text: "Install the webhook", link: "/install" },
          { text: "Try it", link: "/demo" },
        ],
      },
      {
        text: "Tasks",
        items: [
          { text: "check", link: "/check" },
          { text: "diff, build, get", link: "/diff" },
          { text: "CI", link: "/ci" },
          { text: "Ignoring findings", link: "/ignoring" },
          { text: "The policy", link: "/policy" },
          { text: "Operating", link: "/operating" },
          { text: "Authentication", link: "/authentication" },
        ],
      },
      {
        text: "Reference",
        items: [
          { text: "Rules", link: "/rules/", collapsed: true, items: pages("rules") },
          { text: "Failures and limits", link: "/failures" },
          { text: "Supported versions", link: "/support" },
          { text: "Threat model", link: "/threat-model" },
          { text: "Releasing", link: "/releasing" },
          { text: "Decisions", link: "/decisions/", collapsed: true, items: pages("decisions") },
        ],
      },
    ],
  },
});
