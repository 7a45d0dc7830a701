"""What the model may look at, and how categories become numbers."""

from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder

# A date reaches the model as days since 1970-01-01: it lets the model follow the market's level.
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


def encoder() -> ColumnTransformer:
    """One-hot categories (an unseen one is all zeros), numbers untouched.

    Trees need no scaling and take missing numbers as they are; scaling would move float32 values
    across split thresholds in the exported graph.
    """
    return ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(CATEGORIES)),
            ("numbers", "passthrough", list(NUMBERS)),
        ]
    )
