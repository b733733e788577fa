(function () {
  "use strict";
  var byId = function (id) { return document.getElementById(id); };
  var filter = byId("filter");
  if (filter) {
    var findings = Array.prototype.slice.call(document.querySelectorAll(".finding"));
    var groups = Array.prototype.slice.call(document.querySelectorAll(".group"));
    var texts = findings.map(function (f) { return (f.textContent + " " + f.parentNode.querySelector("h2").textContent).toLowerCase(); });
    var suppressed = byId("f-suppressed");
    var apply = function () {
      var words = byId("f-text").value.toLowerCase().split(/\s+/).filter(Boolean);
      var want = { action: byId("f-action").value, severity: byId("f-severity").value, rule: byId("f-rule").value };
      var shown = 0, total = 0;
      findings.forEach(function (f, i) {
        var hide = f.classList.contains("suppressed") && !(suppressed && suppressed.checked);
        if (!hide) { total++; }
        Object.keys(want).forEach(function (k) { if (want[k] && f.dataset[k] !== want[k]) { hide = true; } });
        hide = hide || words.some(function (w) { return texts[i].indexOf(w) < 0; });
        f.hidden = hide;
        if (!hide) { shown++; }
      });
      groups.forEach(function (g) { g.hidden = !g.querySelector(".finding:not([hidden])"); });
      byId("none").hidden = shown > 0;
      byId("f-count").textContent = shown === total ? total + " shown" : shown + " of " + total + " shown";
    };
    filter.hidden = false;
    filter.addEventListener("input", apply);
    filter.addEventListener("submit", function (e) { e.preventDefault(); });
    apply();
  }
  var svg = byId("graph");
  if (svg) {
    var box = svg.viewBox.baseVal, canvas = svg.parentNode, scale = 1;
    var set = function (s) {
      scale = Math.min(3, Math.max(0.15, s));
      svg.setAttribute("width", Math.round(box.width * scale));
      svg.setAttribute("height", Math.round(box.height * scale));
    };
    // Fit the width, but keep names readable unless the reader asks for less.
    var fit = function (least) { set(Math.min(1, Math.max(least, (canvas.clientWidth - 2) / box.width))); };
    document.querySelector(".zoom").hidden = false;
    byId("zoom-in").addEventListener("click", function () { set(scale * 1.25); });
    byId("zoom-out").addEventListener("click", function () { set(scale / 1.25); });
    byId("zoom-fit").addEventListener("click", function () { fit(0); });
    fit(0.6);
  }
})();
