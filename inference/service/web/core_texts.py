"""Texts that the core and the API have in English alone and that pages show: marked here, so that they get translated.

What is not here is shown in English, marked as such, beside a sentence in the reader's language.
"""

from __future__ import annotations

from typing import Final

from inference.service.web.language import N_

# Of problems.py: the titles of error pages.
TITLES: Final = (
    N_("Something broke"),
    N_("The request cannot be read"),
    N_("Who are you?"),
    N_("Your role may not do this"),
    N_("There is no such thing here"),
    N_("The request came too slowly"),
    N_("It is in another state"),
    N_("The model bundle cannot be used"),
    N_("The request is too large"),
    N_("This content type is not accepted here"),
    N_("The request cannot be right"),
    N_("The case cannot be read"),
    N_("The photo cannot be used"),
    N_("Too many requests"),
    N_("The service is busy"),
    N_("Nothing was stored"),
)
# Why something was refused: store.py, access.py, session.py and these pages.
REFUSALS: Final = (
    N_("the case is completed"),
    N_("the case is completed: it can be read, and nothing about it changes any more"),
    N_("another clinician holds this case: take the next one, or wait until its lease ends"),
    N_("another clinician holds this case: leave a note, or ask them to release it"),
    N_("you do not hold this case, or your lease has ended: claim it first"),
    N_("there is no referral of that id for this caller: check the id, and that it is your clinic's"),
    N_("the form was sent from another site: open the page here and send it again"),
    N_("the service failed on this request: try again, and tell its operator the request id"),
    N_("the list has changed too much since its first page: read it again from its start"),
    N_("this page of the list is too old: read it again from its start"),
    N_("the referral has no such photo"),
    N_("there is nothing at this address: see /openapi.json for those that exist"),
    N_("the list's address names a view, a level or a column that there is not: open the worklist anew"),
    N_("the list's address has a number that is none: open the worklist anew"),
)
# Beside a problem that is said in English alone.
CANNOT_SHOW: Final = N_("The page cannot be shown. What you entered on the page before is still there: go back and try again.")
# Of the shipped bundles' contracts.
LIMITS: Final = (
    N_("Learned from synthetic patients that were drawn from the catalogue; its probabilities are mostly estimates."),
    N_("Its figures are on synthetic patients of the same kind; accuracy on real patients is not known."),
    N_("Knows only the catalogue's conditions; a patient may have another one, or two at once."),
    N_(
        "The critical outcome was learned from emergency departments of the United States, among patients admitted to critical care or not admitted at all: patients admitted elsewhere are absent, so it is easier than reality, and telemedicine patients differ."
    ),
    N_(
        "The emergency call was learned from 760 visits to two Korean hospitals; it follows how experts there apply KTAS. Where no pain score is given, mild and severe pain look alike to it."
    ),
    N_(
        "Glucose and capillary refill are not inputs: the rule floor covers them. Oxygen use and consciousness short of unresponsive enter by a fixed score, with little data behind them."
    ),
    N_(
        "The KTAS visits are of adults: a child's emergency call rests on its critical risk and its vitals' distance from the usual for its age. For newborns trust the rule floor."
    ),
    N_("Knows six diagnoses only; infections, leishmaniasis, eczema and all else look like one of them."),
    N_(
        "Learned from patients of one Brazilian state, nearly all of Fitzpatrick skin types 1 to 3; figures for types 4 to 6 rest on a handful of photos or none."
    ),
    N_(
        "The cancers in the data were chosen for biopsy: their share is far above a clinic's, so probabilities are too high for unselected patients until they are recalibrated there."
    ),
)
