"""Error rates of a model pack on labelled photographs, and the page that tells them."""
