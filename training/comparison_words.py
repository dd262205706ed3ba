"""What gates and figures are called for a reader who is no statistician."""

from __future__ import annotations

TITLES = {
    "red_flags": "Red flags and textbook emergencies",
    "under_triage": "Under-triage: needs care today, is sent home with less",
    "emergencies_late": "Emergencies that are not seen within the hour",
    "missed_malignant": "Malignant lesions that the model does not flag",
    "worst_subgroup": "Worst subgroup",
    "over_triage": "Over-triage: others who are called urgent",
    "false_alarm": "Benign lesions that the model flags",
    "accuracy": "Accuracy",
    "calibration": "Calibration",
    "parity": "The graph is the trained model",
    "leak": "Held-out cases were never learned from",
    "card": "Model card",
    "size": "Size of the bundle",
    "latency": "Time for one case",
    "gtpa@1": "Right condition first",
    "gtpa@3": "Right condition among the first three",
    "ece": "Calibration error of the first condition",
    "label_ece": "Calibration error of the first label",
    "critical_ece": "Calibration error of critical risk",
    "emergency_ece": "Calibration error of emergency risk",
    "set_coverage": "Condition is inside the 90 % set",
    "set_size": "Conditions in the 90 % set",
    "first_label_right": "Right label first",
    "balanced_accuracy": "Balanced accuracy",
    "critical_auc": "Critical risk, area under the ROC curve",
    "emergency_auc": "Emergency risk, area under the ROC curve",
    "malignancy_auc": "Malignancy, area under the ROC curve",
    "critical_average_precision": "Critical risk, average precision",
    "emergency_average_precision": "Emergency risk, average precision",
    "malignancy_average_precision": "Malignancy, average precision",
}


def words(name: str) -> str:
    """A gate's or figure's name in words, without its explanation; the name itself where there are none."""
    return TITLES.get(name, name).split(":", maxsplit=1)[0]
