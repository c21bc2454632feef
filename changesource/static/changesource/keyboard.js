// Makes what the theme has only for the mouse (menus, the choice of light and dark) work with keyboards as well.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const reachable = "a[href], button, input, select, textarea, summary, [tabindex]";
  for (const element of document.querySelectorAll("[x-on\\:click]")) {
    if (element.matches(reachable)) continue;
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.addEventListener("keydown", (event) => {
      if (event.target === element && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        element.click();
      }
    });
  }
});
