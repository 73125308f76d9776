"""Temporary."""
from datetime import datetime, UTC
from decimal import Decimal
from uuid import UUID
from appliance.fields.base import *
from appliance.fields.base import FieldType, ValueFault
from appliance.kernel.kind import Policy
from appliance.kernel.text import fold
class T(FieldType):
    name="text"; slot="t"
    def check_definition(self,f):
        out=[]
        if f.filterable and not self.slot: out.append(DefinitionFault("/filterable","no","no"))
        if f.default is not None:
            try: self.accept(f,f.default)
            except ValueFault as b: out.append(DefinitionFault("/default",b.code,b.detail))
        return out
    def accept(self,f,v):
        if not isinstance(v,str): raise ValueFault("wrong_type","text")
        return v
    def slot_value(self,f,v): return fold(v)
    def search_text(self,f,v): return v
class LT(T): name="long_text"; slot=""
class Num(T):
    name="number"; slot="n"; scale=4
    def accept(self,f,v):
        try: return f"{Decimal(v):.2f}"
        except Exception: raise ValueFault("x","decimal") from None
    def slot_value(self,f,v): return int(Decimal(v)*10**4)
class Money(Num): name="money"
class Int(T):
    name="integer"; slot="n"
    def accept(self,f,v): return int(v)
    def slot_value(self,f,v): return v
class YN(Int):
    name="yes_no"
    def accept(self,f,v): return bool(v)
    def slot_value(self,f,v): return int(v)
class Date(T):
    name="date"; slot="d"
    def slot_value(self,f,v): return datetime.fromisoformat(v).replace(tzinfo=UTC)
class Moment(T):
    name="moment"; slot="d"
    def slot_value(self,f,v): return datetime.fromisoformat(v)
class Choice(T):
    name="choice"
    def accept(self,f,v):
        if v not in [c["key"] for c in f.options["choices"]]: raise ValueFault("c","c")
        return v
    def slot_value(self,f,v): return v
class Multi(T):
    name="multi_choice"; slot="link"; policy=Policy.SET
    def accept(self,f,v): return sorted(v)
    def members(self,f,v): return v
class Ref(T):
    name="reference"; slot="r"
    def slot_value(self,f,v): return UUID(v)
class Refs(Multi): name="references"
class Email(T): name="email"
class Phone(T): name="phone"
class Js(T):
    name="json"; slot=""
    def accept(self,f,v): return v
class Roll(T): name="rollup"; slot=""; stored=False
TYPES={t.name:t() for t in (T,LT,Num,Money,Int,YN,Date,Moment,Choice,Multi,Ref,Refs,Email,Phone,Js,Roll)}
type_of=TYPES.__getitem__
