// The answer to a refused form: a reload opens the page that the form is on, and posts nothing again.
const { page } = document.querySelector("[data-page]").dataset;
history.replaceState(null, "", page);
