"""The features of the model, and their encoding."""

from typing import Any

# The model receives the date as days since 1970-01-01, so it can learn how prices change over time.
NUMBERS = (
    "sale_date",
    "living_area_sqft",
    "lot_size_sqft",
    "frontage_ft",
    "depth_ft",
    "year_built",
    "rooms",
    "bedrooms",
    "full_baths",
    "half_baths",
    "garage_sqft",
    "latitude",
    "longitude",
)
CATEGORIES = ("stories", "wall", "garage")
FEATURES = NUMBERS + CATEGORIES


def encoder() -> Any:
    """Return an encoder that one-hot encodes categories and leaves numbers unchanged.

    A category that is not in the training data is encoded as all zeros.

    Trees need no scaling and accept missing numbers. Scaling could move float32 values across the
    split thresholds of the exported graph.
    """
    # Imported here, because stages that only read the schema start a second faster without scikit-learn.
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    return ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(CATEGORIES)),
            ("numbers", "passthrough", list(NUMBERS)),
        ]
    )
