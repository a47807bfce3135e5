"""The custom resources, as typed models: schemas, defaults and validation rules come from them."""
