package io.usagelakehouse;

import org.apache.spark.sql.connector.catalog.FunctionCatalog;
import org.apache.spark.sql.connector.catalog.Identifier;
import org.apache.spark.sql.connector.catalog.functions.BoundFunction;
import org.apache.spark.sql.connector.catalog.functions.UnboundFunction;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/**
 * The SQL functions `events.parse(binary)` and `events.time(binary)`.
 *
 * Registered by `spark.sql.catalog.events`; the option `fields` holds the event schema as Spark DDL.
 */
public final class EventFunctions implements FunctionCatalog {
  private String name;
  private StructType fields;

  @Override
  public void initialize(String catalogName, CaseInsensitiveStringMap options) {
    name = catalogName;
    fields = StructType.fromDDL(options.get("fields"));
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public String[] defaultNamespace() {
    return new String[] {};
  }

  @Override
  public Identifier[] listFunctions(String[] namespace) {
    return new Identifier[] {Identifier.of(new String[] {}, "parse"), Identifier.of(new String[] {}, "time")};
  }

  @Override
  public UnboundFunction loadFunction(Identifier ident) {
    switch (ident.name()) {
      case "parse":
        return unbound("parse", new ParseEvent(fields));
      case "time":
        return unbound("time", new EventTime());
      default:
        throw new IllegalArgumentException("No function " + ident + " in catalog " + name + "; it has parse and time.");
    }
  }

  private static UnboundFunction unbound(String name, BoundFunction function) {
    return new UnboundFunction() {
      @Override
      public BoundFunction bind(StructType input) {
        if (input.size() != 1 || !input.fields()[0].dataType().equals(DataTypes.BinaryType)) {
          throw new UnsupportedOperationException(name + " takes one binary argument, found " + input.sql());
        }
        return function;
      }

      @Override
      public String description() {
        return name + "(binary)";
      }

      @Override
      public String name() {
        return name;
      }
    };
  }
}
