"""The pages for people: worklist, case, intake, dashboard. Rendered here, of use without JavaScript, better with a little of it."""
